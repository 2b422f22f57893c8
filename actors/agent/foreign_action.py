"""Reads actions of models that were never trained on the grammar of ``common.chat``.

The grammar stays the rule, in training and here. What plainly means an action is rewritten into it,
so that the model sees its own earlier actions in the right form; all else is left as it came, and
the loop answers it like any action that does not parse. Pure.
"""

import re

from common.chat import ACTION_END, ParsedAction, action_text, escape_tags, parse_action

_CODE = "<code>"
_THINK_TAGS = re.compile(r"</?think>")
_FENCE = re.compile(r"^```(?:python|py|ipython)?[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
_WHOLE_FENCE = re.compile(r"\s*```\w*[ \t]*\n(.*?)\n?```\s*", re.DOTALL)


def cut_after_end(text: str) -> str:
    """``text`` up to the end of the first action; the rest of an overshoot is dropped."""
    end = text.find(ACTION_END)
    return text if end < 0 else text[: end + len(ACTION_END)]


def rewrite(text: str, *, stopped: bool = True) -> str:
    """``text`` in the grammar of an action where it plainly means one, else unchanged.

    Rewritten are: an end that the server stripped as its stop string; thoughts without their tags,
    or with one of them; a Markdown fence in the code block, or in its place; anything after the
    first code block.

    Args:
        text: what the model wrote.
        stopped: whether it ended by itself; a code block that was cut off is never closed.
    """
    text = cut_after_end(text)
    parsed = parse_action(text)
    if parsed is not None and _WHOLE_FENCE.fullmatch(parsed.code) is None:
        return text
    action = _tagged(text, stopped=stopped) if _CODE in text else _fenced(text)
    written = action_text(action) if action is not None else text
    return written if parse_action(written) is not None else text


def with_thoughts(thoughts: str, text: str) -> str:
    """An answer whose thoughts came apart from it, as reasoning models send them.

    Args:
        thoughts: the reasoning; tags in it are escaped.
        text: the answer proper.
    """
    return f"<think>{escape_tags(thoughts.strip())}</think>{text}"


def _tagged(text: str, *, stopped: bool) -> ParsedAction | None:
    before, _, code = text.partition(_CODE)
    if not code.endswith(ACTION_END) and not stopped:
        return None
    code = code.removesuffix(ACTION_END)
    fence = _WHOLE_FENCE.fullmatch(code)
    return _action(before, fence.group(1) if fence else code)


def _fenced(text: str) -> ParsedAction | None:
    text = _THINK_TAGS.sub("\n", text)  # a fence begins a line
    fence = _FENCE.search(text)
    return _action(text[: fence.start()], fence.group(1)) if fence else None


def _action(before: str, code: str) -> ParsedAction:
    thoughts = [part.strip() for part in _THINK_TAGS.split(before)]
    think = escape_tags("\n".join(part for part in thoughts if part))
    return ParsedAction(think=think, code=code.strip("\r\n"))
