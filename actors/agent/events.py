"""What an episode tells while it runs, and what is left of it."""

from dataclasses import dataclass
from typing import Protocol

from common.wire.records import Outcome, Step


class EpisodeListener(Protocol):
    """Follows an episode while it runs; called in the loop, so it must return at once."""

    def on_delta(self, step: int, text: str) -> None:
        """A piece of the action of ``step`` was sampled."""

    def on_action(self, step: int, text: str, code: str | None) -> None:
        """The action of ``step`` is whole; its cell is about to run."""

    def on_step(self, number: int, step: Step) -> None:
        """A step is over, with its observation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """What came of an episode, but for the tokens, which the conversation has.

    Attributes:
        outcome: how it ended.
        answer: what was submitted first, or None.
        steps: every action with its observation.
        failure: what failed, as ``Kind: text``, for INFRASTRUCTURE, and for an OUT_OF_CONTEXT whose
            context was refused as too long; empty otherwise.
        kernel_level: isolation level of its kernel; empty if it had none.
        cells_executed: cells run.
        tokens_generated: tokens sampled.
        notepad: its text at the end.
    """

    outcome: Outcome
    answer: str | None
    steps: tuple[Step, ...]
    failure: str = ""
    kernel_level: str = ""
    cells_executed: int = 0
    tokens_generated: int = 0
    notepad: str = ""
