"""From plain arguments to the messages of the contract."""

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from lexora.client._settings import Settings
from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ChatMessage, ChatRequest, FunctionTool, Role, Tool
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.sampling_pb2 import SamplingParams

Messages = str | Iterable[ChatMessage | Mapping[str, Any]]
Options = CallOptions | Mapping[str, Any] | None

_SAMPLING = frozenset(SamplingParams.DESCRIPTOR.fields_by_name)
_CHAT = frozenset(ChatRequest.DESCRIPTOR.fields_by_name) - {"model", "messages", "sampling"}


def chat_call(model: str, messages: Messages, options: Options, settings: Settings, given: Mapping[str, Any]) -> Call:
    """A chat as a Call. `given` are fields of SamplingParams and ChatRequest by name; raises TypeError for any other."""
    request = ChatRequest(model=model, messages=_messages(messages))
    for name, value in given.items():
        if name in _SAMPLING:
            _set(request.sampling, name, value)
        elif name in _CHAT:
            _set(request, name, [_tool(tool) for tool in value] if name == "tools" else value)
        else:
            near = get_close_matches(name, _SAMPLING | _CHAT, n=1)
            raise TypeError(f"no field of a chat: {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return Call(options=call_options(options, settings), chat=request)


def call_options(given: Options, settings: Settings) -> CallOptions:
    """The options of one call, with the client's defaults below them."""
    options = CallOptions(user=settings.user)
    if settings.priority is not None:
        options.priority = settings.priority
    options.MergeFrom(given if isinstance(given, CallOptions) else CallOptions(**(given or {})))
    return options


def _set(message: Any, name: str, value: Any) -> None:
    """Set one field. As in OpenAI's form, `reasoning_effort="low"` and `tool_choice="required"` are taken as well."""
    if name == "reasoning_effort" and isinstance(value, str) and not value.startswith("REASONING_EFFORT_"):
        value = f"REASONING_EFFORT_{value.upper()}"
    elif name == "tool_choice" and isinstance(value, str):
        value = {"mode": f"TOOL_MODE_{value.upper()}"}
    if value is not None:  # as in the SDKs: None is the same as not given
        message.MergeFrom(type(message)(**{name: value}))


def _messages(given: Messages) -> list[ChatMessage]:
    if isinstance(given, str):
        return [ChatMessage(role=Role.ROLE_USER, text=given)]
    return [each if isinstance(each, ChatMessage) else _message(each) for each in given]


def _message(given: Mapping[str, Any]) -> ChatMessage:
    """Fields of ChatMessage; `role: "user"` and `content: "text"`, as in OpenAI's form, are taken as well."""
    fields = dict(given)
    role = fields.get("role")
    if isinstance(role, str) and not role.startswith("ROLE_"):
        fields["role"] = f"ROLE_{role.upper()}"
    if isinstance(fields.get("content"), str):
        fields["text"] = fields.pop("content")
    return ChatMessage(**fields)


def _tool(given: Tool | Mapping[str, Any]) -> Tool:
    """Name, description and `parameters`, a JSON schema; OpenAI's form with `function` around them is taken as well."""
    if isinstance(given, Tool):
        return given
    fields = dict(given.get("function", given))
    if "parameters" in fields:
        fields["parameters_json"] = json.dumps(fields.pop("parameters"), ensure_ascii=False)
    return Tool(function=FunctionTool(**fields))
