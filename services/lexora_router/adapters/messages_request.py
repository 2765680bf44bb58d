"""A chat completion's request as one of the Messages API.

What has the same meaning is translated. What would change the answer and cannot be had is refused, by name; what only tunes
an answer and has no counterpart is left out (`_IGNORED`); every other field goes on as it is, so that a client can use the
engine's own (`thinking`, `top_k`, `cache_control`). docs/api.md has the table.

https://docs.anthropic.com/en/api/messages; Anthropic's own rule for OpenAI's fields: https://docs.anthropic.com/en/api/openai-sdk
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from lexora_router.errors import InvalidRequest, UnsupportedByBackend

DEFAULT_MAX_TOKENS = 4096  # the Messages API has no default; all of Anthropic's models allow so many
MAX_TEMPERATURE = 1.0

Block = dict[str, Any]
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# Any other value asks for an answer that cannot be had: null, or one of these.
_ONLY: dict[str, tuple[object, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": (),
    "functions": ([],),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "structured_outputs": (),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "web_search_options": (),
}
_ADVICE = {
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "structured_outputs": "use `response_format` with a `json_schema`",
    "web_search_options": "give Anthropic's own tool to /v1/messages",
}
# fmt: off
_IGNORED = frozenset((
    "add_generation_prompt", "cache_salt", "chat_template", "chat_template_kwargs", "continue_final_message",
    "frequency_penalty", "include_reasoning", "length_penalty", "logit_bias", "min_p", "min_tokens",
    "mm_processor_kwargs", "prediction", "presence_penalty", "priority", "prompt_cache_key", "prompt_cache_retention",
    "repetition_penalty", "request_id", "return_token_ids", "seed", "service_tier", "skip_special_tokens",
    "spaces_between_special_tokens", "store", "stream_options", "verbosity",
))
_TRANSLATED = frozenset((
    "max_completion_tokens", "max_tokens", "messages", "metadata", "parallel_tool_calls", "reasoning_effort",
    "response_format", "safety_identifier", "stop", "temperature", "tool_choice", "tools", "user",
))
# fmt: on
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}


def to_messages(body: bytes) -> bytes:
    """The request for /v1/messages. Raises InvalidRequest, `param` naming the field, for what cannot be had there."""
    raw = {name: value for name, value in _object(body, "body").items() if name not in _IGNORED and not _is_null(value)}
    read = raw.keys() & (_TRANSLATED | _ONLY.keys())
    fields = {name: _value(raw[name], name) for name in read}
    _check(raw, fields)
    request: dict[str, Any] = {name: value for name, value in raw.items() if name not in read}
    system, messages = _conversation(fields.get("messages"))
    if system:
        request["system"] = system
    request["messages"] = messages
    request["max_tokens"] = _first(fields, "max_completion_tokens", "max_tokens", default=DEFAULT_MAX_TOKENS)
    for name, translate in _FIELDS.items():
        if fields.get(name) is not None:
            translate(request, fields[name])
    _tools(request, fields)
    if user := fields.get("user") or fields.get("safety_identifier") or _user_id(fields.get("metadata")):
        request["metadata"] = {"user_id": user}
    return _encode(request)


def _check(raw: Mapping[str, msgspec.Raw], fields: Mapping[str, Any]) -> None:
    """Refuse what would change the answer, and cannot be had."""
    for name in raw:
        guided = name.startswith("guided_")  # vLLM's older words for structured outputs
        if guided or (name in _ONLY and fields[name] not in _ONLY[name]):
            advice = _ADVICE.get("structured_outputs" if guided else name, "")
            advice = f"; {advice}" if advice else ""
            raise UnsupportedByBackend(
                f"`{name}` cannot be had from this model's engine, which speaks the Messages API{advice}.", name
            )


def _user_id(metadata: Any) -> Any:
    return metadata.get("user_id") if isinstance(metadata, dict) else None


def _temperature(request: dict[str, Any], value: Any) -> None:
    """OpenAI's goes to 2."""
    request["temperature"] = min(value, MAX_TEMPERATURE) if isinstance(value, int | float) else value


def _stop(request: dict[str, Any], value: Any) -> None:
    request["stop_sequences"] = [value] if isinstance(value, str) else value


def _effort(request: dict[str, Any], value: Any) -> None:
    if value == "none":
        request["thinking"] = {"type": "disabled"}
    elif isinstance(value, str) and value in _EFFORTS:
        request["output_config"] = _config(request) | {"effort": _EFFORTS[value]}
    else:
        raise _refused("reasoning_effort", f"reasoning_effort must be one of none, {', '.join(_EFFORTS)}.")


def _format(request: dict[str, Any], value: Any) -> None:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text":
        return
    schema = value.get("json_schema") if isinstance(value, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        what = f"`{kind}`" if isinstance(kind, str) else "this"
        said = f"response_format: the Messages API has no {what}; use a `json_schema` with a `schema`."
        raise UnsupportedByBackend(said, "response_format")
    request["output_config"] = _config(request) | {"format": {"type": "json_schema", "schema": schema["schema"]}}


def _config(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the client itself has written there, if anything."""
    found = request.get("output_config", {})
    return _object(bytes(found), "output_config") if isinstance(found, msgspec.Raw) else found


_FIELDS: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "temperature": _temperature,
    "stop": _stop,
    "reasoning_effort": _effort,
    "response_format": _format,
}


def _tools(request: dict[str, Any], fields: Mapping[str, Any]) -> None:
    tools = _list(fields.get("tools"), "tools")
    if tools:
        request["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    choice = fields.get("tool_choice")
    if choice is not None:
        request["tool_choice"] = _choice(choice)
    if tools and fields.get("parallel_tool_calls") is False:
        made = request.setdefault("tool_choice", {"type": "auto"})
        if made["type"] != "none":
            made["disable_parallel_tool_use"] = True


def _tool(tool: Any, param: str) -> Any:
    """One function; a tool of Anthropic's own kind goes on as it is."""
    if not isinstance(tool, dict) or tool.get("type") == "custom":
        raise _refused(param, f"{param} must be a tool of type `function`.")
    if tool.get("type") != "function":
        return tool
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _refused(f"{param}.function", f"{param}.function must be an object.")
    made: Block = {"name": function.get("name")}
    if function.get("description"):
        made["description"] = function["description"]
    made["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    if function.get("strict") is not None:
        made["strict"] = function["strict"]
    return made | ({"cache_control": tool["cache_control"]} if "cache_control" in tool else {})


def _choice(choice: Any) -> Block:
    if isinstance(choice, str) and choice in _TOOL_CHOICES:
        return {"type": _TOOL_CHOICES[choice]}
    named = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(named, dict) and isinstance(named.get("name"), str):
        return {"type": "tool", "name": named["name"]}
    raise _refused("tool_choice", "tool_choice must be none, auto, required, or name a function.")


def _conversation(messages: Any) -> tuple[list[Block], list[Block]]:
    """The system prompt's blocks, which come first wherever they stood, and the other messages."""
    system: list[Block] = []
    others: list[Block] = []
    results: list[Block] | None = None  # of the message before, while tools' results follow each other
    for index, message in enumerate(_list(messages, "messages")):
        param = f"messages[{index}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role == "tool":
            if results is None:
                results = []
                others.append({"role": "user", "content": results})
            results.append(_result(message, param))
            continue
        results = None
        if role in ("system", "developer"):
            system += _blocks(message.get("content"), f"{param}.content")
        elif role == "user":
            content = message.get("content")
            others.append(
                {"role": role, "content": content if isinstance(content, str) else _blocks(content, f"{param}.content")}
            )
        elif role == "assistant":
            if said := list(_said(message, param)):  # an empty message would be refused
                others.append({"role": role, "content": said})
        else:
            raise _refused(f"{param}.role", f"{param}.role must be system, developer, user, assistant or tool.")
    return system, others


def _result(message: Block, param: str) -> Block:
    """A tool's result. All that belong to one answer must be in one message."""
    content = message.get("content")
    made = content if isinstance(content, str) else _blocks(content, f"{param}.content")
    return {"type": "tool_result", "tool_use_id": message.get("tool_call_id"), "content": made}


def _said(message: Block, param: str) -> Iterator[Block]:
    """What the model said before: thoughts, text, calls of tools. A thought without its signature would be refused."""
    yield from _list(message.get("thinking_blocks"), f"{param}.thinking_blocks")
    content = message.get("content")
    if content:
        yield from _blocks(content, f"{param}.content")
    elif message.get("refusal"):
        yield {"type": "text", "text": message["refusal"]}
    for index, call in enumerate(_list(message.get("tool_calls"), f"{param}.tool_calls")):
        here = f"{param}.tool_calls[{index}].function"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise _refused(here, f"{here} must be an object.")
        arguments = function.get("arguments") or "{}"
        if not isinstance(arguments, str):
            raise _refused(f"{here}.arguments", f"{here}.arguments must be a string.")
        given = _object(arguments.encode("utf-8", "surrogatepass"), f"{here}.arguments")
        yield {"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given}


def _blocks(content: Any, param: str) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [_block(part, f"{param}[{index}]") for index, part in enumerate(_list(content, param))]


def _block(part: Any, param: str) -> Block:
    """One part of a message; one of Anthropic's own kinds goes on as it is."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise _refused(param, f"{param} must be a part with a type.")
    read = _PARTS.get(kind)
    if read is None:
        return dict(part)
    kept = {"cache_control": part["cache_control"]} if "cache_control" in part else {}
    return read(part, param) | kept


def _text(part: Block, param: str) -> Block:
    return {"type": "text", "text": part.get("text", part.get("refusal"))}


def _image(part: Block, param: str) -> Block:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise _refused(f"{param}.image_url", f"{param}.image_url needs a url.")
    found = _DATA_URL.match(url)
    if found is not None:
        source = {"type": "base64", "media_type": found[1], "data": url[found.end() :]}
    elif url.startswith(("http://", "https://")):
        source = {"type": "url", "url": url}
    else:
        raise _refused(f"{param}.image_url", f"{param}.image_url must be an http(s) URL, or a data URL in base64.")
    return {"type": "image", "source": source}


def _file(part: Block, param: str) -> Block:
    """A PDF; others, and files that were uploaded elsewhere, cannot be had."""
    file = part.get("file")
    data = file.get("file_data") if isinstance(file, dict) else None
    found = _DATA_URL.match(data) if isinstance(data, str) else None
    if found is None or found[1] != "application/pdf":
        raise UnsupportedByBackend(f"{param}.file must be a PDF, as a data URL in file_data.", f"{param}.file")
    assert isinstance(file, dict)
    assert isinstance(data, str)
    title = {"title": file["filename"]} if file.get("filename") else {}
    return {"type": "document", "source": {"type": "base64", "media_type": found[1], "data": data[found.end() :]}} | title


def _audio(part: Block, param: str) -> Block:
    raise UnsupportedByBackend(f"{param}: the Messages API takes no audio.", param)


_PARTS: dict[str, Callable[[Block, str], Block]] = {
    "text": _text,
    "refusal": _text,
    "image_url": _image,
    "file": _file,
    "input_audio": _audio,
}


def _first(fields: Mapping[str, Any], *names: str, default: Any) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), default)


def _list(value: Any, param: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _refused(param, f"{param} must be an array.")
    return value


def _is_null(raw: msgspec.Raw) -> bool:
    return memoryview(raw)[0] in b"n"


def _value(raw: msgspec.Raw, param: str) -> Any:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused(param, f"{param} cannot be read: a number is out of range, or it is nested too deeply.") from None


def _object(text: bytes, param: str) -> dict[str, Any]:
    """A JSON object whose values keep their bytes."""
    try:
        return _decode_object(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _refused(param, f"{param} must be a JSON object.") from None


def _refused(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param)
