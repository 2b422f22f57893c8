"""What the policy gets to see of a cell, and when that takes a new segment."""

from collections.abc import Callable

from actors.agent.conversation import Conversation, Opening
from actors.agent.notepad import Notepad
from actors.agent.window import ContextWindow
from actors.kernels.sandboxed.terminal import as_terminal
from common.config import Agent

_GAP = "\n…\n"
_TRACEBACK = "Traceback (most recent call last):"


class Observer:
    """Shows outputs to the policy within its context, and trims it when it is full."""

    def __init__(
        self,
        agent: Agent,
        conversation: Conversation,
        *,
        window: ContextWindow,
        notepad: Notepad,
        opening: Callable[[], Opening],
    ) -> None:
        """Look after one episode; ``opening`` gives the start of a segment as it is now."""
        self._agent, self._conversation = agent, conversation
        self._window, self._notepad, self._opening = window, notepad, opening
        self._notepad_seen = ""
        self.segments = 1

    @property
    def notepad_text(self) -> str:
        """The notepad as it is now."""
        return self._notepad.read()

    def add(self, step: int) -> None:
        """A step was sampled: the context holds it."""
        self._window.add(step)

    def shown(self, output: str, step: int) -> str:
        """What of a cell's output is put into the context, the notepad after a change to it."""
        limit = self._agent.max_observation_characters
        whole = as_terminal(output).rstrip()
        text = cut(whole, limit)
        if text != whole and "context" in self._agent.tools:
            hidden = len(whole) - len(text) + len(_GAP)
            text += f" [{hidden} more characters in context.output({step})]"
        notepad = self._notepad.read()
        if notepad != self._notepad_seen and notepad not in text:
            text = f"{text}\n[notepad]\n{notepad}".lstrip("\n")
        self._notepad_seen = notepad
        return text

    def remind(self, step: int, text: str) -> str | None:
        """Put a reminder of ours into the context; the text, or None if it did not fit."""
        if self._window.changed or not self._fits(text):
            return self.observe(step, text)
        self._conversation.observe(step, text, ours=True)
        return text

    def observe(self, step: int, text: str) -> str | None:
        """Put an observation into the context; the text as it fitted, or None if none did."""
        if self._window.changed or (self._agent.trim != "none" and not self._fits(text)):
            self._renew(step, text)
        room = self._room()
        fitted = text
        while (size := self._conversation.measure(fitted)) > room and fitted:
            fitted = cut(text, len(fitted) * max(room, 0) // (size + 8))
        if size > room or (not fitted and text.strip()):
            return None
        self._conversation.observe(step, fitted)
        return fitted

    def _renew(self, step: int, text: str) -> None:
        """Start a new segment, if one is left: the changes asked for, then what must go."""
        if self.segments >= self._agent.max_segments:
            return
        if self._agent.trim != "none" and not self._fits(text):
            newest = self._conversation.measure(text)
            half = self._conversation.limit // 2 if self._agent.trim == "soft" else 0
            self._window.keep_newest(half, lambda one: self._size(one) + newest * (one == step))
        self.segments += 1
        self._conversation.begin(self._opening(), self._window.renew())
        if self._agent.trim != "none" and not self._fits(text):
            self._window.keep_newest(0, self._size)
            self._conversation.begin(self._opening(), self._window.renew())

    def _fits(self, text: str) -> bool:
        return self._conversation.measure(text) <= self._room()

    def _room(self) -> int:
        used = self._agent.max_action_tokens + self._conversation.tokens
        return self._conversation.limit - used

    def _size(self, step: int) -> int:
        action, observation = self._conversation.step_tokens(step)
        replacement = self._window.replacement(step)
        return action + (
            observation if replacement is None else self._conversation.measure(replacement)
        )


def cut(text: str, characters: int) -> str:
    """``text``, shortened to at most ``characters``: both ends, with a mark where it was cut.

    The end is a third of it; up to two thirds where a traceback begins there.
    """
    text = text.rstrip()
    if len(text) <= characters:
        return text
    room = characters - len(_GAP)
    if room < 2:
        return text[: characters - 1] + "…" if characters > 1 else ""
    traceback = text.rfind(_TRACEBACK)
    wanted = len(text) - traceback if traceback >= 0 else 0
    end = min(max(wanted, (room + 1) // 3), room - room // 3)
    return f"{text[: room - end]}{_GAP}{text[-end:]}"
