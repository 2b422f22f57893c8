"""What is known of a run while it goes on, and was known last: ``status.json`` in its folder.

The learner's first rank writes it about once a second, whole or not at all, at most some hundred
kilobytes; ``lzero status`` and ``lzero why`` read it. Nothing of it is a path or a secret.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import InputError, ProtocolError
from common.json_output import json_text
from common.telemetry.process_totals import TrajectoryCounts
from common.waits.catalogue import Part
from common.waits.graph import Quiet, WaitGraph
from common.waits.records import Node, Waiting, WaitReport
from common.whole_file import write_whole
from common.wire.codec import record_from

STATUS = "status.json"
EVERY_S = 1.0
"""Between two looks."""
STALE_S = 10.0
"""After which a file that is not written any more says that its writer is silent."""
MOST_MEMBERS = 256
MOST_EDGES = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberStatus:
    """An actor or a policy server.

    Attributes:
        node: which.
        state: in a word.
        cause: why a server is not asked.
        heard_s: seconds since it was heard; -1 where nobody has heard it yet.
        version: of a server's weights; -1 where it has none, and of actors.
        leases: that an actor holds.
        report: what it said last of itself.
    """

    node: Node
    state: str
    cause: str = ""
    heard_s: float = -1.0
    version: int = -1
    leases: int = 0
    report: WaitReport = field(default_factory=WaitReport)


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What went through in the last ``seconds``, at most a minute, per second."""

    seconds: float = 0.0
    trajectories_per_s: float = 0.0
    tokens_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Note:
    """Something known of a part that is no wait."""

    node: Node
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """``status.json``.

    Attributes:
        written_at: seconds since the epoch, on the learner's clock.
        has_ended: the learner has ended in order; nobody will write this file any more.
        step, steps: optimizer steps done, and of the whole run.
        version: of the weights that the policy servers acknowledged.
        trajectories: what became of all leases so far.
        flow: of the last minute.
        ready, open, wanted: groups that are ready for the next batch, open, and in a batch.
        depth, max_staleness: how many versions ahead of the learner sampling may run, and could.
        credit: part of the episodes that actors ask for which servers bear.
        buffered_bytes: of trajectories kept.
        learner: what its first rank waits for.
        members: actors and policy servers, at most ``MOST_MEMBERS``; ``others`` are left out.
        waits: all that is known of who waits for whom, each with its ``who``.
        silent: who says nothing.
        notes: what else is known of who waits for nothing.
    """

    written_at: float
    has_ended: bool
    step: int
    steps: int
    version: int
    trajectories: TrajectoryCounts
    flow: Flow
    ready: int
    open: int
    wanted: int
    depth: float
    max_staleness: int
    credit: float
    buffered_bytes: int
    learner: WaitReport
    members: tuple[MemberStatus, ...]
    others: int
    waits: tuple[Waiting, ...]
    silent: tuple[Quiet, ...]
    notes: tuple[Note, ...]

    def graph(self, *, now: float) -> WaitGraph:
        """Who waits for whom; where this is older than ``STALE_S`` at ``now``, nobody knows."""
        age = max(0.0, now - self.written_at)
        longest_last = sorted(self.silent, key=lambda quiet: quiet.seconds)
        silent = {q.node: Quiet(q.node, q.seconds + age, q.words) for q in longest_last}
        if not self.has_ended and age > STALE_S:
            node = Node(Part.LEARNER)
            silent[node] = Quiet(node, age, "has said nothing")
        notes = {note.node: note.words for note in self.notes}
        return WaitGraph(waits=self.waits, silent=silent, notes=notes, now=now)


def write_status(status: RunStatus, path: Path) -> None:
    """Replace the file in one step; raises OSError."""
    write_whole(path, json_text(dataclasses.asdict(status)) + "\n")


def read_status(path: Path) -> RunStatus | None:
    """The status of a run; None where no learner has begun.

    Raises:
        InputError: the file is none of ours, or of another version.
    """
    try:
        return record_from(RunStatus, json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ProtocolError, ValueError, OSError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read: {error}; was it written by another version of l-zero?"
        ) from error


def most(waits: Sequence[Waiting]) -> tuple[Waiting, ...]:
    """At most ``MOST_EDGES``, the oldest."""
    if len(waits) <= MOST_EDGES:
        return tuple(waits)
    return tuple(sorted(waits, key=lambda wait: -wait.seconds)[:MOST_EDGES])
