"""What of an episode's past the policy still sees, step by step. Pure: it only decides.

A context holds the opening (system prompt, task, notepad) and the steps that are still visible. A
change to what the policy has already seen starts a new segment; this module says which steps it
carries on. The opening, the budgets and what is on record for training are out of its reach.
"""

from collections.abc import Callable, Sequence

from actors.agent.conversation import KeptStep

StepSize = Callable[[int], int]
"""Tokens that a step takes, action and observation together."""


class ContextWindow:
    """The visible steps, and the changes to them that wait for the next segment."""

    def __init__(self) -> None:
        """Start with no steps."""
        self._visible: list[int] = []
        self._replacements: dict[int, str] = {}
        self._changed = False

    @property
    def visible(self) -> tuple[int, ...]:
        """Numbers of the steps that the next context holds, in order."""
        return tuple(self._visible)

    @property
    def changed(self) -> bool:
        """Whether the next context differs from the current one in what was already seen."""
        return self._changed

    def add(self, step: int) -> None:
        """A new step was sampled."""
        self._visible.append(step)

    def drop(self, step: int) -> None:
        """Leave ``step`` out of the next context.

        Raises:
            ValueError: it is not there, or it is the newest, whose output is still to be seen.
        """
        self._check(step)
        self._visible.remove(step)
        self._replacements.pop(step, None)
        self._changed = True

    def replace(self, step: int, text: str) -> None:
        """Show ``text`` in place of the observation of ``step``.

        Raises:
            ValueError: it is not there, or it is the newest.
        """
        self._check(step)
        self._replacements[step] = text
        self._changed = True

    def replacement(self, step: int) -> str | None:
        """The text that took the place of an observation, or None."""
        return self._replacements.get(step)

    def keep_newest(self, room: int, size: StepSize) -> None:
        """Drop the oldest steps until the rest takes at most ``room`` tokens; keep the newest."""
        kept: list[int] = []
        for step in reversed(self._visible):
            room -= size(step)
            if kept and room < 0:
                break
            kept.append(step)
        self._restrict(kept[::-1])

    def renew(self) -> tuple[KeptStep, ...]:
        """The steps that the new segment carries on; from here nothing has changed."""
        kept = tuple(
            KeptStep(step=step, replacement=self._replacements.get(step)) for step in self._visible
        )
        self._changed = False
        return kept

    def _restrict(self, kept: Sequence[int]) -> None:
        dropped = len(kept) < len(self._visible)
        self._visible = list(kept)
        self._replacements = {s: t for s, t in self._replacements.items() if s in kept}
        self._changed = self._changed or dropped

    def _check(self, step: int) -> None:
        earlier = self._visible[:-1]
        if step not in earlier:
            listed = ", ".join(map(str, earlier)) or "none yet"
            raise ValueError(f"step {step!r} is not among the earlier steps in context: {listed}")
