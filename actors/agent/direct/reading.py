r"""Reads the short answer out of what a model wrote in one message. Pure.

Thoughts come off first. Then the last of these marks counts, wherever it stands:

    <answer>Port Alden</answer>
    Answer: Port Alden                   also "Final answer:", in bold, on the next line, or there
                                         in $$ or \[
    \boxed{42}
    #### 42
    ... the answer is Port Alden.        at the end of a line

Of kind ``code`` the last code block counts instead; of kind ``number`` the number in what is
marked.
Where nothing is marked: the last number for ``number``, the whole text for all other kinds.
"""

import re
from collections.abc import Iterator

from actors.agent.fences import Fence, find_fences
from actors.rewards.numeric import parse_number

NOT_SCORED = "stand_alone"
"""Task kind of questions that nobody scores: their answer is the whole message."""

_THINK, _THINK_END, _TURN_END = "<think>", "</think>", "<|im_end|>"
_BOXED = "\\boxed{"
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_LINE = re.compile(
    r"(?:^[ \t>*_#-]*|(?<=[.!?])[*_]*[ \t]+[*_]*)"
    r"(?:(?:the|my|your)[ ])?(?:final[ ]|short[ ])?answer(?:[ ]is)?"
    r"[ \t]*[*_]*[ \t]*[:：][ \t]*[*_]*[ \t]*(?:\n\s*)?(?:(?:\$\$|\\\[)[ \t]*\n\s*)?(\S[^\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S[^\n]*)$", re.MULTILINE)
_SENTENCE = re.compile(
    r"\banswer(?:[ ]to[ ](?:the|this|your)[ ](?:question|problem))?[ ]is"
    r"[ \t]*[:：]?[ \t]+(\S[^\n]*)$",
    re.MULTILINE | re.IGNORECASE,
)
_DIGITS = re.compile(
    r"(?:(?<![\w)\]])[-+\u2212])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[ ]?/[ ]?\d+)?(?:[ ]?\\?%)?"
)
_WRAPPING = " \t*_`"
_WRAPPED_STOP = re.compile(r"(?<=[*_`])\.$")


def direct_answer(text: str, kind: str) -> str:
    """The short answer to a task of ``kind`` in the message ``text``; empty where there is none."""
    said = _without_thoughts(text)
    if kind == NOT_SCORED:
        return said
    if kind == "code":
        return _last_code(said) or said
    marked = _last_marked(said)
    if kind == "number":
        return _number_in(marked) or _last_number(said) or marked or said
    return marked or said


def _without_thoughts(text: str) -> str:
    """What follows the thinking; nothing where it never ended."""
    _, closed, after = text.rpartition(_THINK_END)
    if not closed and after.lstrip().startswith(_THINK):
        return ""
    return after.removesuffix(_TURN_END).strip()


def _last_marked(text: str) -> str:
    """The text at the mark that begins last."""
    found = max(_marks(text), default=(0, ""))
    return _clean(found[1])


def _marks(text: str) -> Iterator[tuple[int, str]]:
    yield from _tagged(text)
    for pattern in (_LINE, _HASHES, _SENTENCE):
        for match in pattern.finditer(text):
            yield match.start(1), match[1]
    start = text.rfind(_BOXED)
    if start >= 0:
        yield start, _braced(text, start + len(_BOXED))


def _tagged(text: str) -> Iterator[tuple[int, str]]:
    """What stands between an opening tag and the next closing one, in one pass over the text."""
    begin: int | None = None
    for tag in _TAG.finditer(text):
        if not tag[1]:
            begin = tag.end() if begin is None else begin
        elif begin is not None:
            yield begin, text[begin : tag.start()]
            begin = None


def _clean(marked: str) -> str:
    """Without Markdown around it, and without the box in it."""
    start = marked.rfind(_BOXED)
    text = _braced(marked, start + len(_BOXED)) if start >= 0 else marked
    return _WRAPPED_STOP.sub("", text.strip()).strip(_WRAPPING)


def _braced(text: str, start: int) -> str:
    """What stands between an opening brace, which ends at ``start``, and its closing one."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[start:at]
    return text[start:].partition("\n")[0]


def _number_in(marked: str) -> str:
    """The number in what was marked: all of it, or the first one, after an equals sign if any."""
    plain = marked.strip().rstrip(".")
    if parse_number(plain) is not None:
        return plain
    found = _DIGITS.search(marked.rpartition("=")[2])
    return found[0] if found else ""


def _last_number(text: str) -> str:
    found = _DIGITS.findall(text)
    return found[-1] if found else ""


def _last_code(text: str) -> str:
    """The code of the last block of Python, which may lack its end."""
    last: Fence | None = None
    for last in find_fences(text, unclosed=True):  # noqa: B007 - the last one is wanted
        pass
    return last.code if last is not None else ""
