"""What is shown for a message that is no action: the form, filled with what the message held.

A model that nobody trained for the form copies an example more readily than it follows a rule. Its
own code, or the answer that it stated in words, is put into the form; where there is neither, the
beginning of its own words is the thought. Pure.
"""

import re
from collections.abc import Callable

from actors.agent.fences import find_fence
from common.chat import escape_tags

_FORM = "<think>{think}</think><code>{code}</code>"
_NO_ACTION = "Nothing was run: your message was no action. Write it like this:\n"
_CUT_OFF = "Nothing was run: your message was too long and was cut off. Write less, like this:\n"
_NOTHING = "# Python, e.g. print(...) or submit_final_answer(...)"
_ECHOED = "I go on from what my code printed."
_LONGEST_CODE, _LONGEST_THOUGHT, _LONGEST_ANSWER = 1500, 160, 80

_TAG = re.compile(r"</?(?:think|code|output)>|<\|[^|<>]*\|>")
_BLOCK = re.compile(r"<code>(.*?)(?:</?(?:think|code|output)>|\Z)", re.DOTALL)
_SUBMITTED = re.compile(r"^.*?(submit_final_answer\(.+\))", re.MULTILINE)
_STATED = re.compile(
    r"(?:####|\banswer(?:\s+is)?\s*[:=]|\banswer\s+is)[ \t]*(\S(?:[^\n.]|\.(?! |\n|$))*)"
    r"|\\boxed\{([^{}\n]+)\}|<output>\s*(-?\d[\d.,]*)\s*</output>",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\$?(-?\d+(?:,\d{3})*(?:\.\d+)?)(?![\d,.]*\d)")


def format_reminder(
    text: str, *, cut_off: bool = False, escape: Callable[[str], str] = escape_tags
) -> str:
    """The reminder for ``text``; its tags are our own.

    Args:
        text: a message of the model's that is no action.
        cut_off: it ended because it was too long.
        escape: breaks the tags in what comes from ``text``.
    """
    code = "" if cut_off else own_code(text) or _submission(text)
    form = _FORM.format(think=escape(_thought(text)), code=escape(code or _NOTHING))
    return (_CUT_OFF if cut_off else _NO_ACTION) + form


def own_code(text: str) -> str:
    """Code in ``text`` that only misses its form; empty where there is none, or too much."""
    block = _BLOCK.search(text)
    fence = find_fence(text, unclosed=True)
    call = _SUBMITTED.search(text)
    found = fence.code if fence else block[1] if block else call[1] if call else ""
    code = _TAG.sub("", found).strip()
    return code if len(code) <= _LONGEST_CODE else ""


def stated_answer(text: str) -> str:
    """The answer that ``text`` ends up with in words; empty where it names none."""
    found = ["".join(groups) for groups in _STATED.findall(text)]
    answer = _TAG.sub("", found[-1]).strip(" \t*.$\"'`") if found else ""
    number = _NUMBER.match(answer)
    answer = number[1].replace(",", "") if number else answer
    return answer if len(answer) <= _LONGEST_ANSWER else ""


def _submission(text: str) -> str:
    answer = stated_answer(text)
    shown = answer if _NUMBER.fullmatch(answer) else repr(answer)
    return f"submit_final_answer({shown})" if answer else ""


def _thought(text: str) -> str:
    """The first line of words in ``text``, shortened."""
    if text.lstrip().startswith("<output>"):  # an echo of what it was shown
        return _ECHOED
    words = _TAG.sub("\n", text.partition("```")[0].partition("<code>")[0])
    words = next((line.strip() for line in words.splitlines() if line.strip()), "")
    return words[:_LONGEST_THOUGHT].rstrip() or "what to do next"
