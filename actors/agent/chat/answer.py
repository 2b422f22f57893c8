"""Chat messages, and how the pieces of an answer become one text. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from actors.agent.foreign_action import end_of_action, with_thoughts
from actors.tools.arguments import valid_text

_THINKING = ("thinking", "reasoning", "reasoning_text")
"""Types of the parts of a content that hold thoughts."""
_REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Servers have two names for what a model thinks beside its answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatMessage:
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatAnswer:
    """One answer.

    Attributes:
        text: the answer; thoughts that came apart from it are in a think block in front.
        finish_reason: as the server says, e.g. ``stop`` or ``length``.
        prompt_tokens, answer_tokens: as the server counts them; None where it does not.
    """

    text: str
    finish_reason: str
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class AnswerStream:
    """Puts the pieces of an answer together; what comes after its end is dropped."""

    def __init__(self, end: str = "") -> None:
        """``end`` ends the answer and is part of it; empty for none.

        Once it was seen, ``is_complete``: nothing more is needed.
        """
        self._end = end
        self._thoughts = ""
        self._content = ""
        self.is_complete = False

    @property
    def text(self) -> str:
        """The answer so far."""
        content = valid_text(self._content)
        return with_thoughts(valid_text(self._thoughts), content) if self._thoughts else content

    def take(self, message: Any) -> str:
        """Take a message, or a piece of one; returns what to show of it."""
        if self.is_complete:
            return ""
        content = field_of(message, "content")
        fields = (field_of(message, name) for name in _REASONING_FIELDS)
        thoughts = next((t for field in fields if (t := _text(field))), "") or _text(
            content, thoughts=True
        )
        return self._take_thoughts(thoughts) + self._take_content(_text(content))

    def answer(self, finish_reason: str, usage: Any) -> ChatAnswer:
        """The whole answer; ``usage`` is the server's token counts, or None."""
        return ChatAnswer(
            text=self.text,
            finish_reason="stop" if self.is_complete else finish_reason,
            prompt_tokens=_count(usage, "prompt_tokens"),
            answer_tokens=_count(usage, "completion_tokens"),
        )

    def _take_thoughts(self, piece: str) -> str:
        opening = "<think>" if piece and not self._thoughts else ""
        self._thoughts += piece
        return opening + piece

    def _take_content(self, piece: str) -> str:
        closing = "</think>" if piece and self._thoughts and not self._content else ""
        shown = len(self._content)
        self._content += piece
        end = end_of_action(self._content, self._end) if self._end else -1
        if end >= 0:
            self._content, self.is_complete = self._content[:end], True
        return closing + self._content[shown:]


def first_choice(reply: Any) -> Any:
    """The first choice of a completion, or of a piece of one; None where it has none.

    Servers send pieces that are ``null``, and such whose choices are empty, ``null`` or left out.
    """
    choices = field_of(reply, "choices")
    return choices[0] if isinstance(choices, list) and choices else None


def field_of(part: Any, name: str) -> Any:
    """A field of what a server sent, as JSON or as an object of a client; else None."""
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def as_json(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages as the chat API takes them."""
    return [{"role": message.role, "content": valid_text(message.content)} for message in messages]


def _text(value: Any, *, thoughts: bool = False) -> str:
    """The text of a content, which may come in parts; or the thoughts among its parts."""
    if isinstance(value, str):
        return "" if thoughts else value
    if not isinstance(value, list):
        return ""
    return "".join(_part(part, thoughts=thoughts) for part in value)


def _part(part: Any, *, thoughts: bool) -> str:
    if isinstance(part, str):
        return "" if thoughts else part
    kind, text = (field_of(part, name) for name in ("type", "text"))
    if kind in _THINKING:
        inner = text if isinstance(text, str) else field_of(part, str(kind))
        return _text(inner) if thoughts else ""
    return text if isinstance(text, str) and not thoughts else ""


def _count(usage: Any, name: str) -> int | None:
    value = field_of(usage, name)
    return value if type(value) is int and value >= 0 else None
