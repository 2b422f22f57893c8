"""What can happen to the groups of trajectories, as records of the journal.

Each change says what was decided, so that it can be made again without deciding anything:
``GroupBuffer.apply`` is the only place that makes one, in a run and in its replay. The first frame
of a record is a msgpack map of the fields, without those marked below as frames of their own.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from common.errors import ProtocolError
from common.wire.codec import Buffer, decode, encode
from common.wire.records import Trajectory
from learner.journal.format import Record

LOST_AT_RESTART = "lost_at_restart"
"""Why a lease ended that was out when the coordinator began again, and that nobody claimed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """A member of a training group was handed to a session; of a new group where it is not open.

    Attributes:
        group: number of the group.
        session: identity of the session that holds the lease.
    """

    lease_id: str
    group: int
    sample_index: int
    task_id: str
    session: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """A trajectory came and went into its group.

    Attributes:
        frames: the trajectory as it came; the record has them after its first frame.
        num_bytes: size on the wire.
    """

    trajectory: Trajectory
    num_bytes: int
    frames: Sequence[Buffer] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A lease ended without a trajectory that can be trained on.

    Attributes:
        reason: under which it is counted.
        counts: against the tries of its member.
        usable: a trajectory came, in time, and was too stale.
        tokens, cells: what was spent on it, where that is known.
    """

    lease_id: str
    group_id: str
    reason: str
    counts: bool
    usable: bool = False
    tokens: int = 0
    cells: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """Nothing more is awaited for a group.

    Attributes:
        late: leases still out, whose trajectories come too late.
        dropped_as: the reason for which its trajectories are dropped; empty where it is ready.
    """

    group_id: str
    late: tuple[str, ...] = ()
    dropped_as: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale:
    """Ready groups were dropped when a batch for weight version ``version`` was looked for."""

    version: int
    groups: tuple[str, ...]
    trajectories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """A batch was taken, to train the weights of ``version``; ids in the order of the batch."""

    version: int
    groups: tuple[str, ...]
    trajectories: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Restarted:
    """The coordinator began again: what nobody can bring any more is handed out again, or is over.

    Attributes:
        lost: leases of groups that went on without them, and those whose sessions are not known.
    """

    lost: tuple[str, ...] = ()
    reason: str = LOST_AT_RESTART


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationBegun:
    """Held-out tasks are asked, of weights from ``version`` on, for the ``number``-th time."""

    number: int
    version: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A trajectory of a held-out task came; ``frames`` as in ``Accepted``."""

    trajectory: Trajectory
    frames: Sequence[Buffer] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationTaken:
    """All trajectories of the evaluation begun last are in, and were taken."""

    number: int


Change = (
    Granted | Accepted | Ended | Closed | Stale | Taken | Restarted
    | EvaluationBegun | Evaluated | EvaluationTaken
)  # fmt: skip

KINDS: dict[int, type[Change]] = {
    1: Granted, 2: Accepted, 3: Ended, 4: Closed, 5: Stale, 6: Taken, 7: Restarted,
    8: EvaluationBegun, 9: Evaluated, 10: EvaluationTaken,
}  # fmt: skip
"""By the number in the record; a number is never given again."""

GRANTED, TAKEN = 1, 6
_NUMBERS = {kind: number for number, kind in KINDS.items()}
_NAMES = {
    kind: [f.name for f in dataclasses.fields(kind) if f.name not in ("trajectory", "frames")]
    for kind in _NUMBERS
}
"""What goes into the first frame."""


def to_record(change: Change) -> Record:
    """A change as a record of the journal."""
    kind = type(change)
    fields = {name: getattr(change, name) for name in _NAMES[kind]}
    frames: Sequence[Buffer] = ()
    if isinstance(change, Accepted | Evaluated):
        frames = change.frames or encode(change.trajectory)
    return Record(_NUMBERS[kind], (msgpack.packb(fields), *frames))


def from_record(record: Record) -> Change:
    """The change that ``to_record`` was given.

    Raises:
        ProtocolError: the record is none of this version.
    """
    try:
        kind = KINDS[record.kind]
        fields = msgpack.unpackb(record.frames[0], use_list=False)
        if kind is Accepted or kind is Evaluated:
            frames = [bytes(frame) for frame in record.frames[1:]]
            fields |= {"trajectory": _trajectory(frames), "frames": frames}
        return kind(**fields)
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError(f"a record of kind {record.kind} cannot be read: {error}") from error


def _trajectory(frames: Sequence[Buffer]) -> Trajectory:
    found = decode(frames)
    if not isinstance(found, Trajectory):
        raise TypeError(f"expected a trajectory, found {type(found).__name__}")
    return found
