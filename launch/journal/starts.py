"""From where a journal can be played: the initial weights and the checkpoints that are kept."""

from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import InputError
from launch.journal.place import JournalPlace
from launch.journal.steps import Steps
from learner.checkpoints.files import checkpoint_name
from learner.coordination.recorded import RecordedStep, recorded_steps
from learner.journal.segments import Place
from learner.journal.survey import Flaw, FlawKind, Survey


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A state that is kept, and what the journal has from there on.

    Attributes:
        step: of the checkpoint; 0 for the initial weights.
        serial: of the first record that it does not have.
        places: the records from there on.
        steps: those whose batches these records hold, without a gap from ``step + 1`` on.
    """

    step: int
    serial: int
    places: tuple[Place, ...]
    steps: tuple[RecordedStep, ...]

    @property
    def last(self) -> int:
        """The last step that can be played from here."""
        return self.step + len(self.steps)

    def __str__(self) -> str:
        """For a person."""
        if not self.step:
            return "the initial weights"
        return f"checkpoint {checkpoint_name(self.step)}"


class DamagedJournalError(InputError):
    """Records that are needed cannot be read, because bytes are not as they were written."""


def starts_of(place: JournalPlace, survey: Survey) -> Iterator[Start]:
    """Every kept state from which at least one step can be played, the earliest first.

    Raises:
        InputError: a ledger or a record is of another version.
    """
    positions = {0: 0} | place.positions()
    for step, serial in sorted(positions.items()):
        places = survey.since(serial)
        found = [one for one in recorded_steps(places, serial=serial) if one.step > step]
        steps = [one for number, one in enumerate(found) if one.step == step + 1 + number]
        if steps:
            yield Start(step=step, serial=serial, places=places, steps=tuple(steps))


def choose_start(place: JournalPlace, survey: Survey, steps: Steps | None) -> Start:
    """The latest start before ``steps`` that they can all be played from; without, the earliest.

    Raises:
        InputError: there is none; says which steps can be played, and why others cannot.
        DamagedJournalError: because of damage to the journal.
    """
    starts = list(starts_of(place, survey))
    fitting = [
        start
        for start in starts
        if steps is None or start.step < steps.first <= steps.last <= start.last
    ]
    if fitting:
        return fitting[0] if steps is None else fitting[-1]
    damage = [flaw for flaw in survey.flaws if flaw.kind is FlawKind.DAMAGED]
    kind = DamagedJournalError if damage else InputError
    raise kind(_refusal(survey, starts, steps, damage))


def _refusal(
    survey: Survey, starts: list[Start], steps: Steps | None, damage: list[Flaw]
) -> str:  # fmt: skip
    wanted = "no step" if steps is None else f"--steps {steps}"
    can = "can" if steps is None else "cannot"
    listed = ", ".join(f"{Steps(start.step + 1, start.last)} from {start}" for start in starts)
    why = _why(survey, starts, steps, damage)
    return f"{wanted} of the journal '{survey.folder}' {can} be played: {why}; " + (
        f"steps that can be: {listed}" if starts else "no step can be"
    )


def _why(survey: Survey, starts: list[Start], steps: Steps | None, damage: list[Flaw]) -> str:
    if damage:
        return str(damage[0])
    last = max((start.last for start in starts), default=0)
    missing = [flaw for flaw in survey.flaws if flaw.kind is FlawKind.MISSING]
    if missing:
        return str(missing[0])
    first = survey.segments[0].header.first_serial if survey.segments else 0
    is_late = steps is not None and steps.last > last > 0
    if first and not is_late:
        return (
            f"it begins with record {first}, because what no kept checkpoint needs is removed "
            "(a run keeps all of it with --set run.keep_journal=true), and steps are played from "
            "a checkpoint that is kept"
        )
    return f"the last step that it holds is {last}" if last else "it holds no batch"
