"""Guesses token counts for models whose tokenizer is not at hand. Pure."""

import math
from collections.abc import Sequence

from actors.agent.chat.answer import ChatMessage

_BYTES_PER_TOKEN = 3.5
"""To begin with: a little below what English and Python have, so that guesses are high."""
_BOUNDS = (1.0, 6.0)
_CAUTION = 0.8
_MESSAGE_TOKENS = 4
"""What a chat template puts around a message."""
_MINIMUM_SAMPLE = 200
"""Bytes below which a server's count tells too little about the rate."""


class TokenEstimate:
    """UTF-8 bytes per token; learns from the counts that the server gives for whole prompts."""

    def __init__(self) -> None:
        """Begin with a usual rate."""
        self._rate = _BYTES_PER_TOKEN

    def of(self, text: str) -> int:
        """Tokens of ``text`` as one message."""
        return _MESSAGE_TOKENS + math.ceil(_size(text) / self._rate)

    def of_all(self, messages: Sequence[ChatMessage]) -> int:
        """Tokens of a chat."""
        return sum(self.of(message.content) for message in messages)

    def learn(self, messages: Sequence[ChatMessage], tokens: int) -> None:
        """The server counted ``tokens`` for ``messages``."""
        size = sum(_size(message.content) for message in messages)
        without_frame = tokens - _MESSAGE_TOKENS * len(messages)
        if size >= _MINIMUM_SAMPLE and without_frame > 0:
            lowest, highest = _BOUNDS
            self._rate = min(max(size / without_frame, lowest), highest)

    def was_too_low(self) -> None:
        """The server says that there are more tokens than was thought."""
        self._rate = max(_BOUNDS[0], self._rate * _CAUTION)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
