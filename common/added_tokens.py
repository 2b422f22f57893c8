"""Keeps a tokenizer's added tokens out of text from outside: encode, look, break, encode again.

Matching tags as text is not enough: a tokenizer that normalises (NFKC, lower case, dropped control
characters) reads ``<|im_end|>`` in text that holds no such thing. What counts is its own answer.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

Span = tuple[int, int]
"""Characters from the first to before the second."""

_GENTLE_ROUNDS, _ROUNDS = 3, 6


@runtime_checkable
class TracingTokenizer(Protocol):
    """A tokenizer that tells which characters became its added tokens."""

    def trace(self, text: str) -> tuple[list[int], list[Span]]:
        """Token ids of ``text``, and the spans of its characters that became added tokens."""
        ...


def without_added_tokens(
    tokenizer: TracingTokenizer, body: str, *, head: str = "", tail: str = ""
) -> tuple[str, list[int]]:
    """``body`` with everything broken that the tokenizer reads as an added token, and the ids.

    A space after its first character breaks it; what that does not break becomes question marks,
    and a text that is still read so is left out. Ordinary text is encoded once and unchanged.

    Args:
        tokenizer: decides.
        body: text from outside.
        head: our own text before it, with its tags.
        tail: the same behind it.

    Returns:
        The text in place of ``body``, and the token ids of head, that text and tail.
    """
    for round_ in range(_ROUNDS):
        ids, spans = tokenizer.trace(f"{head}{body}{tail}")
        forged = _inside(spans, body, start=len(head))
        if not forged:
            return body, ids
        body = _broken(body, forged, gentle=round_ < _GENTLE_ROUNDS)
    return "", tokenizer.trace(head + tail)[0]


def _inside(spans: Sequence[Span], body: str, *, start: int) -> list[Span]:
    """What of ``spans`` lies in ``body``, which begins at ``start``.

    A tag of ours may take in white space beside it, and so reach into the body.
    """
    reach = ((max(first - start, 0), min(last - start, len(body))) for first, last in spans)
    return [
        (first, last) for first, last in reach if first < last and not body[first:last].isspace()
    ]


def _broken(text: str, spans: Sequence[Span], *, gentle: bool) -> str:
    pieces, done = [], 0
    for first, last in spans:
        pieces.append(text[done:first])
        forged = text[first:last]
        pieces.append(_spaced(forged) if gentle else "?" * len(forged))
        done = max(done, last)
    return "".join([*pieces, text[done:]])


def _spaced(tag: str) -> str:
    """A space after the first character that is none: a token may take in spaces before it."""
    at = len(tag) - len(tag.lstrip()) + 1
    return f"{tag[:at]} {tag[at:]}"
