"""Chat messages, and how the pieces of an answer become one text. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from actors.agent.foreign_action import end_of_action, with_thoughts

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
        """``end`` ends the answer and is part of it; empty for none."""
        self._end = end
        self._thoughts = ""
        self._content = ""
        self._complete = False

    @property
    def is_complete(self) -> bool:
        """Whether the end was seen, so that nothing more is needed."""
        return self._complete

    @property
    def text(self) -> str:
        """The answer so far."""
        return with_thoughts(self._thoughts, self._content) if self._thoughts else self._content

    def take(self, message: Any) -> str:
        """Take a message, or a piece of one; returns what to show of it."""
        thoughts = next((t for name in _REASONING_FIELDS if (t := _text(message, name))), "")
        return self._take_thoughts(thoughts) + self._take_content(_text(message, "content"))

    def answer(self, finish_reason: str, usage: Any) -> ChatAnswer:
        """The whole answer; ``usage`` is the server's token counts, or None."""
        return ChatAnswer(
            text=self.text,
            finish_reason="stop" if self.is_complete else finish_reason,
            prompt_tokens=getattr(usage, "prompt_tokens", None),
            answer_tokens=getattr(usage, "completion_tokens", None),
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
            self._content, self._complete = self._content[:end], True
        return closing + self._content[shown:]


def _text(message: Any, name: str) -> str:
    value = getattr(message, name, None)
    return value if isinstance(value, str) else ""


def as_json(messages: Sequence[ChatMessage]) -> list[dict[str, str]]:
    """Messages as the chat API takes them."""
    return [{"role": message.role, "content": message.content} for message in messages]
