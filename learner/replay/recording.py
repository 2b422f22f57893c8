"""The batches of a journal in their order, played as after a restart, without task files."""

from collections.abc import Sequence
from pathlib import Path

from common.config import Config
from common.wire.records import Trajectory
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.ledger import coordinator_part, restore_ledger
from learner.coordination.recorded import RecordedOrder
from learner.coordination.replay import Replay
from learner.journal.survey import survey


class Recording:
    """Plays a journal from a checkpoint, or from the beginning, on; rank 0 has one."""

    def __init__(self, config: Config, journal: Path, *, serial: int, ledger: bytes | None) -> None:
        """Begin with the record ``serial``, after the state that ``ledger`` holds.

        Raises:
            InputError: ledger or journal cannot be used.
        """
        places = survey(journal).since(serial)
        order = RecordedOrder(places)
        learner = config.learner
        self._coordinator = Coordinator(
            order,
            groups_per_batch=learner.groups,
            group_size=learner.group_size,
            max_staleness=learner.max_staleness,
            total_batches=config.run.steps,
            max_buffered_bytes=1,
        )
        if ledger is not None:
            restore_ledger(self._coordinator, coordinator_part(ledger))
        order.begin_with(self._coordinator.groups.next_group)
        self._replay = Replay(self._coordinator, places, serial=serial)

    @property
    def counters(self) -> Counters:
        """What became of all leases until the batch that was taken last."""
        return self._coordinator.counters

    def batch(self, version: int) -> Sequence[Trajectory]:
        """The batch that trained the weights of ``version``.

        Raises:
            InputError: the journal does not follow from the checkpoint, or is damaged.
        """
        return self._replay.batch(version)
