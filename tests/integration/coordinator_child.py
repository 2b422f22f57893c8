"""A coordinator process with a journal, without a learner: ``coordinator_child.py FOLDER ADDRESS``.

Goes on from what the journal in ``FOLDER`` holds, takes one batch, writes what it has counted to
``FOLDER/result.json``, and has its actors leave.
"""

import json
import sys
from pathlib import Path

from common.places import Address
from common.plan_file import keys_file
from common.wire.keys import read_key_pair
from common.wire.records import Task
from common.wire.sockets import Wire
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.replay import Replay
from learner.coordination.store import TrajectoryStore
from learner.journal.segments import begin_journal
from learner.journal.writer import JournalWriter

TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(5)]
GROUPS, SIZE = 2, 4


def main(folder: Path, address: Address) -> None:
    coordinator = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=GROUPS, group_size=SIZE, max_staleness=0,
        total_batches=1, max_buffered_bytes=1 << 30, silence_s=60.0,
    )  # fmt: skip
    found = begin_journal(folder / "journal", since=0, resume=True, tell=print)
    replay = Replay(coordinator, found.places)
    store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 20)
    members = {read_key_pair(keys_file(folder, "a0")).public: "a0"}
    with (
        Wire(read_key_pair(keys_file(folder, "learner"))) as wire,
        JournalWriter(
            folder / "journal", first_serial=found.next_serial, earlier=found.segments
        ) as journal,
        Intake(
            coordinator, store, wire.listen("coordinator", address, members, ACTOR_LIMITS),
            journal=journal, replay=replay,
        ) as intake,
    ):  # fmt: skip
        replay.rest()
        intake.go_live()
        batch = intake.take_batch(learner_version=0, timeout_s=50)
        counters = intake.counters()
        result = {
            "batch": [trajectory.trajectory_id for trajectory in batch or ()],
            "counts": [counters.started, counters.finished, counters.trained],
            "dropped": dict(counters.dropped),
        }
        (folder / "result.json").write_text(json.dumps(result))
        intake.drain("done", timeout_s=20)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Address(**json.loads(sys.argv[2])))
