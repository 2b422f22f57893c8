"""What the records of a journal say without a coordinator: which steps, and which tasks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.errors import InputError, ProtocolError
from common.wire.records import Task
from learner.coordination.changes import GRANTED, TAKEN, Change, Granted, Taken, from_record
from learner.journal.format import BrokenRecordError
from learner.journal.segments import Place, read_place

_UNNAMED = "not in the journal"
"""What the journal does not say of a task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedStep:
    """An optimizer step whose batch a journal holds.

    Attributes:
        step: number of the step, from 1; it trains the weights of version ``step - 1``.
        serial: of the record.
        place: of the record.
        trajectories: ids, in the order of the batch.
    """

    step: int
    serial: int
    place: Place
    trajectories: tuple[str, ...]


def read_change(place: Place) -> Change:
    """The change recorded at a place.

    Raises:
        InputError: it cannot be read, or is none of this version.
    """
    try:
        return from_record(read_place(place))
    except (BrokenRecordError, ProtocolError, OSError) as error:
        reason = error.reason if isinstance(error, BrokenRecordError) else error
        raise InputError(
            f"the journal '{place.segment}' cannot be read at offset {place.offset}: {reason}"
        ) from error


def recorded_steps(places: Iterable[Place], *, serial: int) -> list[RecordedStep]:
    """The steps among records of which the first has the number ``serial``; in their order.

    Raises:
        InputError: see ``read_change``.
    """
    found = []
    for number, place in enumerate(places, start=serial):
        if place.kind == TAKEN and isinstance(change := read_change(place), Taken):
            found.append(
                RecordedStep(
                    step=change.version + 1,
                    serial=number,
                    place=place,
                    trajectories=change.trajectories,
                )
            )
    return found


class RecordedOrder:
    """The tasks in the order in which a journal hands them out; of each only the id is known.

    In place of the task files, so that a journal can be played without them.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        """Begin with the first group that is handed out at ``places``.

        Raises:
            InputError: see ``read_change``.
        """
        self._tasks: dict[int, str] = {}
        for place in places:
            if place.kind == GRANTED and isinstance(change := read_change(place), Granted):
                self._tasks.setdefault(change.group, change.task_id)
        self._next = 0

    @property
    def cursors(self) -> dict[str, int]:
        """The number of the next group; of no use to a run."""
        return {"": self._next}

    def go_to(self, cursors: Mapping[str, int]) -> None:
        """Whatever a ledger says: ``begin_with`` tells which group comes next."""

    def begin_with(self, group: int) -> None:
        """The next group is that number."""
        self._next = group

    def next(self) -> Task:
        """The task of the next group."""
        self._next += 1
        return self.by_id(self._tasks.get(self._next - 1, _UNNAMED))

    def by_id(self, task_id: str) -> Task:
        """A task of that id."""
        return Task(task_id=task_id, question=_UNNAMED, answers=(_UNNAMED,))
