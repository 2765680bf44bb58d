"""Chat messages of an OpenAI request as ChatMessage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexora.v1 import chat_pb2
from lexora.v1.chat_pb2 import ChatMessage, ContentPart, ImageDetail, ImagePart, ToolCall
from lexora_contract.enums import value
from lexora_gateway.errors import Refused, invalid
from lexora_gateway.json_body import JsonFields

if TYPE_CHECKING:
    from lexora.v1.chat_pb2 import Role

_ROLES: dict[str, Role.ValueType] = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
}


def chat_messages(items: list[Any], where: str) -> list[ChatMessage]:
    """Translate a list of messages; `where` is its name in complaints. Raises Refused (400) that names the field."""
    if not items:
        raise Refused(invalid(f"{where} must hold at least one message.", where))
    return [_message(item, f"{where}[{index}]") for index, item in enumerate(items)]


def _message(item: Any, where: str) -> ChatMessage:
    fields = _object(item, where)
    role = fields.text("role")
    if role not in _ROLES:
        fields.refuse("role", "one of " + ", ".join(_ROLES))
    message = ChatMessage(
        role=_ROLES[role],
        name=fields.text("name") or "",
        tool_call_id=fields.text("tool_call_id") or "",
        reasoning=fields.text("reasoning"),
        refusal=fields.text("refusal"),
    )
    _content(message, fields)
    calls = fields.items("tool_calls")
    message.tool_calls.extend(_tool_call(call, f"{where}.tool_calls[{i}]", i) for i, call in enumerate(calls))
    _nothing_left(fields)
    return message


def _content(message: ChatMessage, fields: JsonFields) -> None:
    content = fields.take("content")
    if isinstance(content, str):
        message.text = content
    elif isinstance(content, list):
        where = fields.within("content")
        message.parts.extend(_part(part, f"{where}[{index}]") for index, part in enumerate(content))
    elif content is not None:
        fields.refuse("content", "a string, a list of parts or null")


def _part(item: Any, where: str) -> ContentPart:
    fields = _object(item, where)
    kind = fields.text("type")
    if kind == "text":
        part = ContentPart(text=_needed(fields, "text"))
    elif kind == "image_url":
        image = _object(fields.take("image_url"), f"{where}.image_url")
        detail = image.text("detail")
        if detail and not value(ImageDetail, detail):
            image.refuse("detail", "auto, low or high")
        part = ContentPart(image=ImagePart(url=_needed(image, "url"), detail=value(ImageDetail, detail or "")))
        _nothing_left(image)
    else:
        fields.refuse("type", "text or image_url")
    _nothing_left(fields)
    return part


def _tool_call(item: Any, where: str, index: int) -> ToolCall:
    fields = _object(item, where)
    if fields.text("type") not in (None, "function"):
        fields.refuse("type", "function")
    function = _object(fields.take("function"), f"{where}.function")
    call = ToolCall(
        id=fields.text("id") or "",
        name=_needed(function, "name"),
        arguments_json=function.text("arguments") or "",
        index=index,
    )
    _nothing_left(function)
    _nothing_left(fields)
    return call


def _object(value: Any, where: str) -> JsonFields:
    if not isinstance(value, dict):
        raise Refused(invalid(f"{where} must be an object.", where))
    return JsonFields(value, where + ".")


def _needed(fields: JsonFields, name: str) -> str:
    value = fields.text(name)
    if value is None:
        fields.refuse(name, "a string")
    return value


def _nothing_left(fields: JsonFields) -> None:
    # Dropping a field in silence would change what was asked.
    for name, given in fields.rest().items():
        if given is not None:
            fields.refuse(name, "left out here; send it to /v1/chat/completions, which takes every field")
