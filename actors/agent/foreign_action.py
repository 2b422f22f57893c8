"""Reads actions of models that were never trained on the grammar of ``common.chat``.

The grammar stays the rule, in training and here. What plainly means an action is rewritten into it,
so that the model sees its own earlier actions in the right form; all else is left as it came, and
the loop answers it like any action that does not parse. Thoughts are never run: code is looked for
behind them only. Pure.
"""

import re

from actors.agent.bare_code import bare_code
from actors.agent.fences import find_fence, whole_fence
from common.chat import ACTION_END, ParsedAction, action_text, escape_tags, parse_action

_CODE, _THINK, _THINK_END = "<code>", "<think>", "</think>"
_THINK_TAGS = re.compile(r"</?think>")
_BLOCK = re.compile(r"(?:\A|\n)[ \t]*<code>")
_BOM = "\ufeff"
_OTHER_THOUGHTS = {"<thinking>": "</thinking>", "<thought>": "</thought>", "[THINK]": "[/THINK]"}
"""How other models mark their thoughts, where they begin with them."""


def cut_after_end(text: str) -> str:
    """``text`` up to the end of the first action; the rest of an overshoot is dropped."""
    end = end_of_action(text, ACTION_END)
    return text if end < 0 else text[:end]


def end_of_action(text: str, end: str) -> int:
    """Where the first ``end`` behind the thoughts ends in ``text``; -1 where there is none yet.

    Thoughts that have begun and not ended may only mention it.
    """
    start = 0
    while (opened := _after(text, start, _THINK)) is not None:
        closed = text.find(_THINK_END, opened)
        if closed < 0:
            return -1
        start = closed + len(_THINK_END)
    found = text.find(end, start)
    return -1 if found < 0 else found + len(end)


def rewrite(text: str, *, stopped: bool = True) -> str:
    """``text`` in the grammar of an action where it plainly means one, else unchanged.

    Rewritten are: an end that the server stripped as its stop string; thoughts without their tags,
    with one of them, or with tags in them; a Markdown fence in the code block, or in its place;
    Python without any mark; anything after the first code block.

    Args:
        text: what the model wrote.
        stopped: whether it ended by itself; a code block that was cut off is never closed.
    """
    text, ours = cut_after_end(text), cut_after_end(_with_our_tags(text))
    parsed = parse_action(ours)
    if parsed is not None and _cleaned(parsed.code) == parsed.code:
        return ours
    think, rest = _split_thoughts(ours)
    action = (
        _tagged(think, rest, stopped=stopped)
        or _fenced(think, rest, stopped=stopped)
        or (_bare(think, rest) if stopped else None)
    )
    written = action_text(action) if action is not None else text
    return written if parse_action(written) is not None else text


def with_thoughts(thoughts: str, text: str) -> str:
    """An answer whose thoughts came apart from it, as reasoning models send them.

    Args:
        thoughts: the reasoning; tags in it are escaped.
        text: the answer proper.
    """
    return f"<think>{escape_tags(thoughts.strip())}</think>{text}"


def _with_our_tags(text: str) -> str:
    """``text`` with the tags of the grammar around the thoughts that it begins with."""
    for opening, closing in _OTHER_THOUGHTS.items():
        if (opened := _after(text, 0, opening)) is not None:
            thoughts, closed, rest = text[opened:].partition(closing)
            return f"{_THINK}{thoughts}{_THINK_END if closed else ''}{rest}"
    return text


def _split_thoughts(text: str) -> tuple[str, str]:
    """The thoughts, without their tags around them, and what comes after them."""
    if _after(text, 0, _THINK) is None and _CODE in text.partition(_THINK_END)[0]:
        return "", text  # code comes first: a later tag does not make it a thought
    thoughts: list[str] = []
    start = 0  # the text itself is never shortened: that would be quadratic in the blocks
    while True:
        opened = _after(text, start, _THINK)
        closed = text.find(_THINK_END, start)
        if closed < 0 or (opened is None and thoughts):
            return "\n".join(thoughts), text[start:]
        thoughts.append(text[start if opened is None else opened : closed])
        start = closed + len(_THINK_END)


def _tagged(think: str, rest: str, *, stopped: bool) -> ParsedAction | None:
    """The action whose code block begins a line, else the one that is first mentioned."""
    block = _BLOCK.search(rest)
    start = block.end() if block else rest.find(_CODE) + len(_CODE)
    if block is None and (_CODE not in rest or _is_mention(rest, start)):
        return None
    code, closed, _ = rest[start:].partition(ACTION_END)
    if not closed and not stopped:
        return None
    return _action(think, rest[: start - len(_CODE)], code)


def _is_mention(rest: str, start: int) -> bool:
    """Whether a tag within a line is only talked about: no block is closed, and a fence follows."""
    return ACTION_END not in rest and find_fence(rest, unclosed=True, start=start) is not None


def _fenced(think: str, rest: str, *, stopped: bool) -> ParsedAction | None:
    fence = find_fence(rest, unclosed=stopped)
    if fence is None:
        return None
    if _after(rest, 0, _THINK) is not None and rest[fence.end :].strip():
        return None  # a draft in thoughts that never ended
    return _action(think, rest[: fence.start], fence.code)


def _bare(think: str, rest: str) -> ParsedAction | None:
    """The action in code without a mark; thoughts that never ended hold none."""
    if _after(rest, 0, _THINK) is not None:
        return None
    found = bare_code(rest)
    return None if found is None else _action(think, *found)


def _action(think: str, before: str, code: str) -> ParsedAction:
    thoughts = [part.strip() for part in (think, *_THINK_TAGS.split(before))]
    joined = escape_tags("\n".join(part for part in thoughts if part))
    return ParsedAction(think=joined, code=_cleaned(code))


def _cleaned(code: str) -> str:
    """A cell's code without a fence around all of it, and without a mark of its byte order."""
    code = code.strip("\r\n").removeprefix(_BOM)
    fence = whole_fence(code)
    return (fence if fence is not None else code).strip("\r\n").removeprefix(_BOM)


def _after(text: str, start: int, tag: str) -> int | None:
    """Where ``tag`` ends, if it is the first thing from ``start`` on but for white space."""
    while start < len(text) and text[start].isspace():
        start += 1
    return start + len(tag) if text.startswith(tag, start) else None
