r"""The text grammar of an episode: the one place that rollouts, warm start and parser share.

    <|im_start|>system\n{system prompt}<|im_end|>\n      (left out when the prompt is empty)
    <|im_start|>user\n{question}<|im_end|>\n
    <|im_start|>assistant\n
    <think>...</think><code>...</code>                     sampled: one action
    <output>...</output>                                   written by us: its observation
    <think>...</think><code>...</code>                     and so on

A context only grows: what was rendered or sampled before is never rendered again.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.added_tokens import TracingTokenizer, without_added_tokens

ACTION_END = "</code>"
"""An action ends here; it is part of the action."""

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<code>",
    "</code>",
    "<output>",
    "</output>",
)
"""Tags of the grammar; a tokenizer made for this project holds each as one token."""

MAX_OVERSHOOT = 16
"""Characters that a last token may hold beyond the end of the action."""

_MOST_REMEMBERED = 1024
"""Escaped texts that a renderer keeps: tools' descriptions are the same in every episode."""

_NEW_TURN = re.compile(r"\s*<\|im_end\|>\s*<\|im_start\|>(user|assistant)\n")
_SHOWN_OUTPUT = re.compile(r"(<output>.*?</output>)", re.DOTALL)
_TURN_ENDS = ("<|im_end|>", "<|endoftext|>")
_TAG = r"</?(?:think|code|output)>"
_RESERVED = re.compile(rf"<(?=\|)|{_TAG}")


class Tokenizer(Protocol):
    """What the renderer needs of a tokenizer; special tokens are written out, never added."""

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; a special token written in it becomes its one id."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens included."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedAction:
    """The two parts of an action, without their tags."""

    think: str
    code: str


def parse_action(text: str) -> ParsedAction | None:
    """Split the text of one sampled action.

    The grammar is strict: one think block, then one code block with something in it, no tag
    inside either. Text after the end is tolerated where a last token may have brought it, that
    is up to ``MAX_OVERSHOOT`` characters without a tag.

    Args:
        text: the decoded tokens of the action, special tokens included.

    Returns:
        The parts, or None where ``text`` is not an action.
    """
    head, think_end, tail = text.lstrip().partition("</think>")
    body, code_end, rest = tail.lstrip().partition(ACTION_END)
    if not (think_end and code_end and head.startswith("<think>") and body.startswith("<code>")):
        return None
    think, code = head.removeprefix("<think>"), body.removeprefix("<code>")
    if len(rest) > MAX_OVERSHOOT or any(_RESERVED.search(part) for part in (think, code, rest)):
        return None
    if not code.strip():
        return None
    return ParsedAction(think=think, code=code.strip("\r\n"))


def without_turn_end(text: str) -> str:
    """``text`` without the tags that end a turn, which a decoded action may end with."""
    for tag in _TURN_ENDS:
        text = text.removesuffix(tag)
    return text


def escape_tags(text: str, reserved: Iterable[str] = ()) -> str:
    """Break every tag of the grammar in ``text`` by a space after its first character.

    Args:
        text: text from outside: a question, the output of a cell.
        reserved: further strings to break, e.g. the added tokens of a tokenizer.

    Returns:
        Text that no tokenizer can read as a tag; ordinary text is unchanged.
    """
    text = _RESERVED.sub(_break, text)
    for token in sorted(reserved, key=len, reverse=True):
        if len(token) > 1 and not token.isspace():
            text = text.replace(token, token[0] + " " + token[1:])
    return text


def _break(match: re.Match[str]) -> str:
    tag = match.group()
    return f"{tag[0]} {tag[1:]}"


def prompt_text(
    question: str, system: str = "", notepad: str = "", reserved: Iterable[str] = ()
) -> str:
    """The start of a segment, up to where the first action begins."""
    return "".join(_prompt_parts(question, system, notepad, reserved))


def split_turns(system: str) -> list[tuple[str, str]]:
    """Role and text of each message of a system prompt that goes on with worked examples.

    A prompt may write the tags of further turns out; text from outside of it cannot. An output
    within a turn of the assistant is a message of the user's side.
    """
    first, *rest = _NEW_TURN.split(system)
    messages = [("system", first.strip())]
    for role, text in zip(rest[::2], rest[1::2], strict=True):
        parts = _SHOWN_OUTPUT.split(text) if role == "assistant" else [text]
        messages += [(role if n % 2 == 0 else "user", part.strip()) for n, part in enumerate(parts)]
    return [(role, text) for role, text in messages if text]


def task_text(question: str, notepad: str = "") -> str:
    """What the policy is asked: the question and, if there is one, its notepad."""
    return f"{question}\n\nYour notepad:\n{notepad}" if notepad else question


def action_text(action: ParsedAction) -> str:
    """An action as the policy writes it; the inverse of ``parse_action``."""
    return f"<think>{action.think}</think><code>{action.code}</code>"


def observation_text(text: str, reserved: Iterable[str] = ()) -> str:
    """An observation, up to where the next action begins; trailing white space is dropped."""
    return "".join(_observation_parts(text, reserved))


def _prompt_parts(
    question: str, system: str, notepad: str, reserved: Iterable[str]
) -> tuple[str, str, str]:
    """A prompt: what we write, what came from outside, what we write."""
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system.strip() else ""
    asked = escape_tags(task_text(question, notepad), reserved)
    return f"{head}<|im_start|>user\n", asked, "<|im_end|>\n<|im_start|>assistant\n"


def _observation_parts(text: str, reserved: Iterable[str]) -> tuple[str, str, str]:
    return "<output>", escape_tags(text.rstrip(), reserved), "</output>"


def _reminder_text(text: str) -> str:
    return f"<output>{text.rstrip()}</output>"


class ChatRenderer:
    """Turns the new parts of an episode into token ids.

    Text from outside gets no added token of the tokenizer into the ids, however it is written: tags
    are broken as text, and where the tokenizer can be traced its ids are looked at, too, because
    one that normalises text reads tags in what does not look like one.

    Args:
        tokenizer: the policy's tokenizer.
        reserved: further strings that text from outside must not forge; a tokenizer that can be
            traced needs none for its added tokens.
    """

    def __init__(self, tokenizer: Tokenizer, reserved: Iterable[str] = ()) -> None:
        """Look up which tags are single tokens."""
        self._tokenizer = tokenizer
        self._tracing = tokenizer if isinstance(tokenizer, TracingTokenizer) else None
        self._escaped: dict[str, str] = {}
        self._reserved = tuple(token for token in reserved if token not in SPECIAL_TOKENS)
        self._single = {
            tag: ids[0] for tag in SPECIAL_TOKENS if len(ids := tokenizer.encode(tag)) == 1
        }

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end an action: its closing tag and the ends of turn and text, where single."""
        stops = (ACTION_END, *_TURN_ENDS)
        return tuple(self._single[tag] for tag in stops if tag in self._single)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end an action; empty where its closing tag is a single token."""
        return () if ACTION_END in self._single else (ACTION_END,)

    @property
    def turn_end_token_ids(self) -> tuple[int, ...]:
        """Ids that end a turn, where single: an answer without code goes on to there."""
        return tuple(self._single[tag] for tag in _TURN_ENDS if tag in self._single)

    def prompt(self, question: str, system: str = "", notepad: str = "") -> list[int]:
        """Token ids of the start of a segment, up to where the first action begins.

        Args:
            question: the task; its tags are escaped.
            system: text of the system turn; empty for none. It may hold tags; what it holds from
                outside must have gone through ``escape``.
            notepad: shown after the question; its tags are escaped.
        """
        return self._encode(*_prompt_parts(question, system, notepad, self._reserved))

    def observation(self, text: str) -> list[int]:
        """Token ids of an observation, up to where the next action begins."""
        return self._encode(*_observation_parts(text, self._reserved))

    def reminder(self, text: str) -> list[int]:
        """Token ids of an observation that we wrote ourselves, and that may show tags.

        What it holds from outside must have gone through ``escape``.
        """
        return self._tokenizer.encode(_reminder_text(text))

    def new_turn(self, observation: Sequence[int]) -> list[int]:
        """Token ids of an observation behind an action that ended the turn: a turn of its own."""
        opening = self._tokenizer.encode("\n<|im_start|>user\n")
        closing = self._tokenizer.encode("<|im_end|>\n<|im_start|>assistant\n")
        return [*opening, *observation, *closing]

    def escape(self, text: str) -> str:
        """``text`` from outside as it may stand in a system prompt: nothing in it is a tag."""
        if text not in self._escaped:
            broken = escape_tags(text, self._reserved)
            if self._tracing is not None:
                broken, _ = without_added_tokens(self._tracing, broken)
            if len(self._escaped) >= _MOST_REMEMBERED:
                self._escaped.clear()
            self._escaped[text] = broken
        return self._escaped[text]

    def decode(self, ids: list[int]) -> str:
        """Text of sampled ids, special tokens included; feed it to ``parse_action``."""
        return self._tokenizer.decode(ids)

    def _encode(self, head: str, body: str, tail: str) -> list[int]:
        if self._tracing is None:
            return self._tokenizer.encode(head + body + tail)
        return without_added_tokens(self._tracing, body, head=head, tail=tail)[1]
