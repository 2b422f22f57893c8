"""The fields of a line in a trace file, checked: what is wrong is named with its path."""

import math
from dataclasses import dataclass
from typing import Any

from common.errors import InputError

EXPECTED = (
    '{"segments": [{"text": ..., "action": ...}]} or {"messages": [{"role": ..., "content": ...}]}'
)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text with its loss weight."""

    text: str
    weight: float


def spans_of(segments: Any, context_weight: float, where: str) -> list[Span]:
    """The spans of a trace of segments.

    Raises:
        InputError: a field is missing or of another type; there is no text to begin with.
    """
    spans = []
    for number, segment in enumerate(_objects(segments, "segments", where)):
        path = f"segments[{number}]"
        action = _field(segment, "action", path, where)
        if not isinstance(action, bool):
            raise _fault(where, f"{path}.action", "true or false", action)
        text = _field(segment, "text", path, where)
        if not isinstance(text, str):
            raise _fault(where, f"{path}.text", "a text", text)
        spans.append(Span(text, _weight(segment, 1.0 if action else context_weight, path, where)))
    if not spans or not spans[0].text:
        raise InputError(f"{where}: it has no text")
    return spans


def messages_of(messages: Any, where: str) -> list[dict[str, Any]]:
    """The messages of a conversation, the ``content`` of each a text.

    Raises:
        InputError: a field is missing or of another type.
    """
    result = []
    for number, message in enumerate(_objects(messages, "messages", where)):
        path = f"messages[{number}]"
        role = _field(message, "role", path, where)
        if not isinstance(role, str) or not role:
            raise _fault(where, f"{path}.role", "a text such as 'user'", role)
        checked = {**message, "content": _content(message, path, where)}
        if "weight" in message:
            checked["weight"] = _weight(message, 1.0, path, where)
        result.append(checked)
    return result


def tools_of(tools: Any, where: str) -> list[dict[str, Any]]:
    """What a conversation says about tools, for the chat template; empty where it says nothing.

    Raises:
        InputError: it is no list of objects.
    """
    return [] if tools is None else _objects(tools, "tools", where)


def _content(message: dict[str, Any], path: str, where: str) -> str:
    """The text of a message; nothing where it only calls tools.

    A template would write null as "None", and a list of parts as it stands in Python.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, list):
        raise _fault(where, f"{path}.content", "a text", content)
    texts = []
    for number, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else part
        if not isinstance(text, str):
            raise _fault(where, f"{path}.content[{number}]", '{"type": "text", "text": ...}', part)
        texts.append(text)
    return "".join(texts)


def _weight(entry: dict[str, Any], default: float, path: str, where: str) -> float:
    value = entry.get("weight", default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        raise _fault(where, f"{path}.weight", "a number from 0", value)
    return float(value)


def _objects(value: Any, name: str, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise _fault(where, name, "a list of objects", value)
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise _fault(where, f"{name}[{number}]", "an object", entry)
    return value


def _field(entry: dict[str, Any], key: str, path: str, where: str) -> Any:
    if key not in entry:
        raise InputError(f"{where}: expected {EXPECTED}; field '{path}.{key}' is missing")
    return entry[key]


def _fault(where: str, field: str, expected: str, value: Any) -> InputError:
    return InputError(
        f"{where}: expected {EXPECTED}; field '{field}' must be {expected}, got {value!r:.60}"
    )
