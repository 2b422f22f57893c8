"""A part of a long text with a note that says how to read on, and a small memory of long texts."""

from collections import OrderedDict

from actors.tools.arguments import shown


def excerpt(text: str, start: object, limit: int, *, most: object = None) -> str:
    """Characters of ``text`` from ``start``, and a note where more follows.

    Args:
        text: all of it.
        start: first character, from 0.
        limit: the most characters shown.
        most: fewer than ``limit``, or None.

    Raises:
        ValueError: ``start`` or ``most`` is not a number of the right size.
    """
    first = _whole(start, "start", least=0)
    count = limit if most is None else min(limit, _whole(most, "max_characters", least=1))
    if first and first >= len(text):
        raise ValueError(f"start is {first}, but there are only {len(text)} characters")
    end = first + count
    if end >= len(text):
        return text[first:]
    return f"{text[first:end]}\n[characters {first} to {end} of {len(text)}; go on at start={end}]"


def _whole(value: object, name: str, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {shown(value)}")
    return value


class TextMemory:
    """The texts used last, up to a number of characters in total, keys included."""

    def __init__(self, max_characters: int) -> None:
        """Hold nothing yet."""
        self._max_characters = max_characters
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._characters = 0

    def get(self, key: str) -> str | None:
        """The text kept under ``key``, or None."""
        if key in self._texts:
            self._texts.move_to_end(key)
        return self._texts.get(key)

    def put(self, key: str, text: str) -> None:
        """Keep a text; those not used for longest make room."""
        old = self._texts.pop(key, None)
        self._characters += len(key) + len(text)
        self._characters -= 0 if old is None else len(key) + len(old)
        self._texts[key] = text
        while self._characters > self._max_characters:
            dropped_key, dropped = self._texts.popitem(last=False)
            self._characters -= len(dropped_key) + len(dropped)
