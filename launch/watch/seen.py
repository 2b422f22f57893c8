"""A run as its folder shows it at one moment; it is only read."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.run_status import STALE_S, RunStatus, read_status
from common.telemetry.alert_lines import text_of_alert
from common.telemetry.step_record import StepRecord
from common.waits.catalogue import Part
from common.waits.graph import Chain, why
from common.waits.records import Node
from common.waits.sentences import describe_chain, seconds_in_words
from launch.report.metrics_tail import LinesTail, parse_record
from launch.run.folder import RunFolder, RunState

_NEWEST = 5
"""Restarts and alerts that are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenRun:
    """What is known of a run.

    Attributes:
        name: of its folder.
        state: of the command that runs it.
        is_held: whether a command is at work in the folder.
        status: of the processes, by the learner; None where none has begun.
        last: the newest step.
        restarts, alerts: over all attempts, the newest last.
        now: when it was looked at, seconds since the epoch.
    """

    name: str
    state: RunState
    is_held: bool
    status: RunStatus | None
    last: StepRecord | None
    restarts: tuple[str, ...]
    alerts: tuple[str, ...]
    now: float

    @property
    def is_on(self) -> bool:
        """Whether it is running; one whose command was killed is not."""
        return self.state.status == "running" and self.is_held

    @property
    def is_training(self) -> bool:
        """Whether the learner is there, or should be."""
        fresh = self.status is not None and self.now - self.status.written_at <= STALE_S
        return self.is_on and (fresh or self.state.phase == "training")

    def chain(self) -> Chain | None:
        """From what the learner waits for to its root; None where no learner is at work."""
        if self.status is None or self.status.has_ended or not self.is_training:
            return None
        return why(self.status.graph(now=self.now), Node(Part.LEARNER))

    def sentence(self) -> str:
        """What everything waits for in the end; of a run that is over, how it ended."""
        if not self.is_on:
            return _ending(self)
        chain = self.chain()
        if chain is None or self.status is None:
            spent = seconds_in_words(max(0.0, self.now - self.state.phase_at))
            return f"{self.name}: {self.state.phase or 'starting'}, for {spent}"
        text = describe_chain(chain, self.status.graph(now=self.now))
        if chain.root.part is Part.LEARNER and self.restarts:
            return f"{text}; what was started again last: {self.restarts[-1]}"
        return text


def look(path: Path) -> SeenRun:
    """How a run is now.

    Raises:
        InputError: there is none, or its files are of another version.
    """
    folder = RunFolder(path)
    state = folder.read_state()
    if state is None:
        raise InputError(f"{path} holds no run; give the folder of a run, such as runs/quickstart")
    is_held, status = folder.is_held(), read_status(folder.status)
    records = LinesTail(folder.metrics).read()
    return SeenRun(
        name=path.resolve().name,
        state=state,
        is_held=is_held,
        status=status,
        last=parse_record(records[-1]) if records else None,
        restarts=tuple(state.restarts),
        alerts=_texts(folder.alerts),
        now=time.time(),
    )


def as_json(seen: SeenRun) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "name": seen.name,
        "is_on": seen.is_on,
        "sentence": seen.sentence(),
        "state": dataclasses.asdict(seen.state),
        "status": None if seen.status is None else dataclasses.asdict(seen.status),
        "last_step": None if seen.last is None else dataclasses.asdict(seen.last),
        "restarts": list(seen.restarts),
        "alerts": list(seen.alerts),
    }


def _ending(seen: SeenRun) -> str:
    """How a run ended that is over, from what it left."""
    steps = f"{seen.last.step} steps" if seen.last is not None else "no step"
    match seen.state.status:
        case "finished":
            return f"{seen.name} ended well, after {steps}; its numbers are in summary.json"
        case "interrupted":
            return f"{seen.name} was interrupted after {steps}, in: {seen.state.phase}"
        case "failed":
            return f"{seen.name} failed after {steps}: {_first_cause(seen)}"
    return (
        f"{seen.name} is not running any more: its command was killed after {steps}, in: "
        f"{seen.state.phase}; see its logs, and go on with --resume"
    )


def _first_cause(seen: SeenRun) -> str:
    """What a run failed of, and what was said before of the same kind, the first of it."""
    failure = seen.state.failure or "it left no word"
    earlier = [*seen.restarts, *seen.alerts]
    return failure if not earlier else f"{failure}; the first sign of trouble was: {earlier[0]}"


def _texts(file: Path) -> tuple[str, ...]:
    return tuple(filter(None, map(text_of_alert, LinesTail(file).read())))[-_NEWEST:]
