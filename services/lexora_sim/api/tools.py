"""Which tool an answer calls, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lexora_sim.api.errors import bad_request
from lexora_sim.api.structured import dump, instance_seed, make_instance


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`named` calls end with "stop", the others with "tool_calls", as vLLM's do."""

    name: str
    arguments: str  # JSON
    named: bool


def choose_call(tools: list[Any] | None, choice: Any, messages: list[Any], prompt: list[int], seed: int) -> ToolCall | None:
    """Return the call to make, None for a plain answer; raises ApiError.

    With "auto" a tool is called unless the conversation ends with a tool's result; the tool that the last user message
    names, otherwise the first.
    """
    functions = [_function(tool) for tool in tools or []]
    if choice == "none" or (choice is None and not functions):
        return None
    if isinstance(choice, dict):
        wanted = choice.get("name") or _function(choice).get("name")
        found = next((function for function in functions if function.get("name") == wanted), None)
        if found is None:
            raise bad_request("The tool specified in `tool_choice` does not match any of the specified `tools`")
        return _call(found, prompt, seed, named=True)
    if choice not in (None, "auto", "required", "any"):
        raise bad_request(f"Invalid value for `tool_choice`: {choice}!")
    if not functions:
        raise bad_request("When using `tool_choice`, `tools` must be set.")
    if choice in (None, "auto") and _ends_with_result(messages):
        return None
    last = str(messages[-1].get("content")) if messages else ""
    best = next((function for function in functions if str(function.get("name")) in last), functions[0])
    return _call(best, prompt, seed, named=False)


def _call(function: dict[str, Any], prompt: list[int], seed: int, *, named: bool) -> ToolCall:
    schema = function.get("parameters") or function.get("input_schema") or {"type": "object"}
    if not isinstance(schema, dict):
        raise bad_request("a tool's parameters must be an object.", "tools")
    arguments = make_instance({"type": "object", **schema}, instance_seed(prompt, seed))
    return ToolCall(str(function.get("name")), dump(arguments), named)


def _function(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise bad_request("each tool must be an object.", "tools")
    inner = tool.get("function")
    return inner if isinstance(inner, dict) else tool


def _ends_with_result(messages: list[Any]) -> bool:
    last = messages[-1] if messages else {}
    if last.get("role") == "tool" or last.get("type") == "function_call_output":
        return True
    content = last.get("content")
    parts = content if isinstance(content, list) else []
    return any(isinstance(part, dict) and part.get("type") == "tool_result" for part in parts)
