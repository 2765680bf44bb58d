"""Answers of chats: the text, the tools that are asked for, and the receipt."""

import json
from dataclasses import dataclass
from typing import Any

from lexora.v1.chat_pb2 import ChatMessage, ChatResponse, Role, ToolCall
from lexora.v1.receipt_pb2 import Receipt


@dataclass(frozen=True)
class ToolRequest:
    """One call of a tool that the model asks for; `arguments` as the model wrote them, parsed."""

    id: str
    name: str
    arguments: Any


@dataclass(frozen=True)
class Answer:
    """A whole answer. `response` is the message of the contract, with everything that has no short form here."""

    response: ChatResponse
    receipt: Receipt

    @property
    def message(self) -> ChatMessage:
        """What the model said, to be put behind the messages of the next turn."""
        return self.response.choices[0].message if self.response.choices else ChatMessage(role=Role.ROLE_ASSISTANT)

    @property
    def text(self) -> str:
        """The text of the first choice; empty when there is none."""
        return self.message.text

    @property
    def tool_calls(self) -> list[ToolRequest]:
        """The tools that the first choice asks for. Raises ValueError where a model wrote arguments that are no JSON."""
        return tool_requests(self.message.tool_calls)

    def __str__(self) -> str:
        return self.text


def tool_requests(calls: Any) -> list[ToolRequest]:
    """Parsed calls of tools."""
    return [ToolRequest(call.id, call.name, json.loads(call.arguments_json or "{}")) for call in calls]


def tool_result(call: ToolRequest, text: str) -> ChatMessage:
    """The message that answers one call of a tool."""
    return ChatMessage(role=Role.ROLE_TOOL, tool_call_id=call.id, text=text)


class Collected:
    """The pieces of a stream's first choice, put together as they pass.

    `receipt` says what happened to the call so far, and all of it once the stream has ended; `text` is the text so far;
    `finish_reason` is a FinishReason, 0 while the answer goes on.
    """

    def __init__(self) -> None:
        self.receipt = Receipt()
        self.text = ""
        self.finish_reason = 0
        self._tools: dict[int, ToolCall] = {}

    def note(self, message: Any) -> str:
        """Take one StreamResponse; the new text in it."""
        if not message.HasField("delta"):
            self.receipt = message.completed.receipt if message.HasField("completed") else message.started.receipt
        text = ""
        for choice in message.delta.chat.choices:
            if choice.index:
                continue
            text += choice.text
            self.finish_reason = choice.finish_reason or self.finish_reason
            for piece in choice.tool_calls:
                self._note_tool(piece)
        self.text += text
        return text

    def _note_tool(self, piece: ToolCall) -> None:
        tool = self._tools.setdefault(piece.index, ToolCall(index=piece.index))
        tool.id = tool.id or piece.id
        tool.name = tool.name or piece.name
        tool.arguments_json += piece.arguments_json

    @property
    def tool_calls(self) -> list[ToolRequest]:
        """The tools that are asked for, whole once the stream has ended."""
        return tool_requests(self._tools[index] for index in sorted(self._tools))
