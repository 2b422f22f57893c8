"""Plays the journal of a run into a coordinator that was put into the state of a checkpoint.

Batch by batch, as the training loop asks for them: so the coordinator never holds more than it did
when the journal was written. Nothing is decided anew (``GroupBuffer.apply``).
"""

from collections import deque
from collections.abc import Sequence

from common.errors import InputError, ProtocolError
from common.wire.records import Trajectory
from learner.coordination.changes import (
    TAKEN,
    Change,
    Evaluated,
    EvaluationBegun,
    EvaluationTaken,
    Taken,
    from_record,
)
from learner.coordination.coordinator import Coordinator
from learner.coordination.heldout_round import HeldoutRound
from learner.journal.format import BrokenRecordError
from learner.journal.segments import Place, read_place

_AGAIN = "remove the run's folder 'journal' to sample again what came after the checkpoint"


def play(coordinator: Coordinator, change: Change) -> None:
    """Make a change again that was decided earlier; see ``GroupBuffer.apply``.

    An evaluation can be taken from there, but not be gone on with.

    Raises:
        InputError: it does not follow from what is here.
    """
    evaluations = coordinator.evaluations
    if isinstance(change, EvaluationBegun):
        evaluations.next_number = change.number + 1
        evaluations.current = HeldoutRound.earlier(change.number, version=change.version)
    elif isinstance(change, Evaluated | EvaluationTaken):
        if evaluations.current is None:
            raise InputError("no evaluation is under way here")
        if isinstance(change, Evaluated):
            evaluations.current.finished.append(change.trajectory)
        else:
            evaluations.current = None
    else:
        coordinator.groups.apply(change)


class Replay:
    """The records of a journal that have not been played yet."""

    def __init__(self, coordinator: Coordinator, places: Sequence[Place] = (), *, serial: int = 0):
        """Play what is at ``places``, the first of which has the number ``serial``."""
        self.serial = serial
        """Of the next record to be played."""
        self.batches = sum(place.kind == TAKEN for place in places)
        """Batches that have not been played yet."""
        self._coordinator = coordinator
        self._places = deque(places)

    def batch(self, version: int) -> list[Trajectory]:
        """Play up to the next batch, which was to train the weights of ``version``.

        Raises:
            InputError: the journal does not follow from the checkpoint.
        """
        while True:
            change = self._next()
            if isinstance(change, Taken):
                if change.version != version:
                    raise self._mismatch(f"its batch is for version {change.version}")
                batch = self._trajectories(change)
                self._apply(change)
                self.batches -= 1
                return batch
            self._apply(change)

    def rest(self) -> HeldoutRound | None:
        """Play up to the next batch, not with it, or to the end.

        Returns:
            An evaluation that was over by then.
        """
        evaluated: HeldoutRound | None = None
        while self._places and self._places[0].kind != TAKEN:
            change = self._next()
            evaluation = self._coordinator.evaluations.current
            if isinstance(change, EvaluationTaken) and evaluation is not None:
                evaluated = evaluation
            self._apply(change)
        return evaluated

    def _next(self) -> Change:
        place = self._places.popleft()
        self.serial += 1
        try:
            return from_record(read_place(place))
        except (BrokenRecordError, ProtocolError, OSError) as error:
            reason = error.reason if isinstance(error, BrokenRecordError) else error
            raise InputError(
                f"the journal '{place.segment}' cannot be read at offset {place.offset}: {reason}; "
                f"{_AGAIN}"
            ) from error

    def _apply(self, change: Change) -> None:
        try:
            play(self._coordinator, change)
        except LookupError as error:
            raise self._mismatch(f"it knows {error}, which is not here") from error
        except InputError as error:
            raise self._mismatch(str(error)) from error

    def _trajectories(self, taken: Taken) -> list[Trajectory]:
        ready = {t.trajectory_id: t for g in self._coordinator.groups.ready for t in g.finished}
        try:
            return [ready[trajectory_id] for trajectory_id in taken.trajectories]
        except KeyError as error:
            raise self._mismatch(f"its batch has {error}, which is not here") from error

    def _mismatch(self, what: str) -> InputError:
        return InputError(
            f"record {self.serial - 1} of the journal does not follow from the checkpoint: {what}; "
            f"{_AGAIN}"
        )
