"""ChatRequest to the body of /v1/chat/completions."""

import base64
import re
from typing import Any

from lexora.v1 import chat_pb2
from lexora_contract.enums import UNKNOWN, word
from lexora_router.edge.translate.shared import Body, encode, new_body, put_model, put_sampling, raw_object
from lexora_router.errors import InvalidRequest
from lexora_router.payload.fields import Fields

_ROLES: dict[int, str] = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "developer",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
_MEDIA_TYPE = re.compile(r"[a-zA-Z0-9.+-]+/[a-zA-Z0-9.+-]+")


def chat_body(request: chat_pb2.ChatRequest, *, stream: bool, default_model: str | None) -> tuple[bytes, Fields]:
    """OpenAI's JSON of this chat, and what it says.

    Unset fields are left out, fields of `extra_json` come first, typed ones win over them. Raises InvalidRequest, whose
    `param` names the field: "model", "messages" or a path such as "chat.tools[0].parameters_json".
    """
    body = new_body(request.extra_json, "chat.extra_json")
    put_model(body, request.model, default_model)
    if not request.messages:
        raise InvalidRequest("messages must hold at least one message", "messages")
    body["messages"] = [_message(message, f"chat.messages[{i}]") for i, message in enumerate(request.messages)]
    put_sampling(body, request.sampling, "chat.sampling")
    _put_tools(body, request)
    _put_format(body, request)
    if request.logprobs:
        body["logprobs"] = True
    if request.HasField("top_logprobs"):
        body["top_logprobs"] = request.top_logprobs
    if request.reasoning_effort:
        body["reasoning_effort"] = _word(chat_pb2.ReasoningEffort, request.reasoning_effort, "chat.reasoning_effort")
    return encode(body, stream=stream)


def _message(message: chat_pb2.ChatMessage, param: str) -> Body:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(f"{param}.role must be set to a known role", f"{param}.role")
    body: Body = {"role": role, "content": _content(message, param)}
    if message.name:
        body["name"] = message.name
    if message.tool_calls:
        body["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.HasField("reasoning"):
        # vLLM reads the first name; llama.cpp, SGLang and DeepSeek the second.
        body["reasoning"] = body["reasoning_content"] = message.reasoning
    if message.HasField("refusal"):
        body["refusal"] = message.refusal
    return body


def _content(message: chat_pb2.ChatMessage, param: str) -> Any:
    if message.parts:
        return [_part(part, f"{param}.parts[{i}]") for i, part in enumerate(message.parts)]
    return message.text if message.HasField("text") else None


def _part(part: chat_pb2.ContentPart, param: str) -> Body:
    match part.WhichOneof("part"):
        case "text":
            return {"type": "text", "text": part.text}
        case "image":
            image = {"url": _image_url(part.image, f"{param}.image")}
            if part.image.detail:
                image["detail"] = _word(chat_pb2.ImageDetail, part.image.detail, f"{param}.image.detail")
            return {"type": "image_url", "image_url": image}
        case "audio":
            audio = {
                "data": base64.b64encode(part.audio.data).decode(),
                "format": _named(part.audio.format, f"{param}.audio.format"),
            }
            return {"type": "input_audio", "input_audio": audio}
        case "file":
            return {"type": "file", "file": _file(part.file, f"{param}.file")}
        case _:
            raise InvalidRequest(f"{param} must be a text, an image, audio or a file", param)


def _file(file: chat_pb2.FilePart, param: str) -> Body:
    match file.WhichOneof("source"):
        case "file_id":
            body: Body = {"file_id": file.file_id}
        case "data":
            body = {"file_data": _data_url(file.data, file.media_type, param)}
        case _:
            raise InvalidRequest(f"{param} must have a file_id or data", param)
    if file.filename:
        body["filename"] = file.filename
    return body


def _image_url(image: chat_pb2.ImagePart, param: str) -> str:
    if image.WhichOneof("source") is None:
        raise InvalidRequest(f"{param} must have a url or data", param)
    if image.HasField("url"):
        return image.url
    return _data_url(image.data, image.media_type, param)


def _data_url(data: bytes, media_type: str, param: str) -> str:
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise InvalidRequest(f'{param}.media_type must be a media type such as "image/png"', f"{param}.media_type")
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _tool_call(call: chat_pb2.ToolCall) -> Body:
    body: Body = {"id": call.id} if call.id else {}
    return body | {"type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}


def _put_tools(body: Body, request: chat_pb2.ChatRequest) -> None:
    if request.tools:
        body["tools"] = [_tool(tool, f"chat.tools[{i}]") for i, tool in enumerate(request.tools)]
    match request.tool_choice.WhichOneof("choice"):
        case "mode":
            body["tool_choice"] = _word(chat_pb2.ToolMode, request.tool_choice.mode, "chat.tool_choice.mode")
        case "function":
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice.function}}
        case _:
            pass
    if request.HasField("parallel_tool_calls"):
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _tool(tool: chat_pb2.Tool, param: str) -> Body:
    if not tool.HasField("function"):
        raise InvalidRequest(f"{param} must have a function", param)
    given, param = tool.function, f"{param}.function"
    function: Body = {"name": _named(given.name, f"{param}.name")}
    if given.description:
        function["description"] = given.description
    if given.parameters_json:
        function["parameters"] = raw_object(given.parameters_json, f"{param}.parameters_json")
    if given.HasField("strict"):
        function["strict"] = given.strict
    return {"type": "function", "function": function}


def _put_format(body: Body, request: chat_pb2.ChatRequest) -> None:
    shape = request.response_format
    match shape.WhichOneof("format"):
        case "text":
            body["response_format"] = {"type": "text"}
        case "json_object":
            body["response_format"] = {"type": "json_object"}
        case "json_schema":
            schema = _schema(shape.json_schema, "chat.response_format.json_schema")
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        case "regex":
            body["structured_outputs"] = {"regex": shape.regex}
        case "grammar":
            body["structured_outputs"] = {"grammar": shape.grammar}
        case "choice":
            if not shape.choice.texts:
                raise InvalidRequest(
                    "chat.response_format.choice.texts must hold at least one text", "chat.response_format.choice.texts"
                )
            body["structured_outputs"] = {"choice": list(shape.choice.texts)}
        case _:
            pass


def _schema(schema: chat_pb2.JsonSchema, param: str) -> Body:
    body: Body = {
        "name": _named(schema.name, f"{param}.name"),
        "schema": raw_object(schema.schema_json, f"{param}.schema_json"),
    }
    if schema.HasField("strict"):
        body["strict"] = schema.strict
    return body


def _word(enum: Any, number: int, param: str) -> str:
    found = word(enum, number)
    if found == UNKNOWN:
        raise InvalidRequest(f"{param} must be set to a known value", param)
    return found


def _named(name: str, param: str) -> str:
    if not name:
        raise InvalidRequest(f"{param} is missing", param)
    return name
