"""What a journal holds is played into the state of a checkpoint, and what does not fit is named."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgpack
import pytest

from common.errors import InputError
from common.wire.records import Task, TaskLease
from common.wire.session import Hello
from learner.coordination.changes import to_record
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger
from learner.coordination.replay import Replay
from learner.journal.segments import Place, recover
from learner.journal.writer import JournalWriter
from tests.makers import make_trajectory

ROOT = Path(__file__).resolve().parents[2]
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(3)]
A0 = "a0#s"


def coordinator(tasks: Sequence[Task] = TASKS) -> Coordinator:
    return Coordinator(
        TaskOrder(tasks, seed=0), groups_per_batch=1, group_size=2, max_staleness=1,
        total_batches=10, max_buffered_bytes=1 << 30,
    )  # fmt: skip


def finish(state: Coordinator, leases: Sequence[tuple[str, TaskLease]]) -> None:
    for _, lease in leases:
        made = make_trajectory(
            lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
            task_id=lease.task.task_id, purpose=lease.purpose,
        )  # fmt: skip
        assert state.receive(A0, made, learner_version=0)


def journaled(folder: Path) -> Coordinator:
    """Two batches, with an evaluation between them, and one begun after them."""
    state = coordinator()
    with JournalWriter(folder) as writer:
        state.groups.note = lambda change: writer.append(to_record(change)) and None
        state.join(Hello(actor_id="a0", session="s", schema_version=1, credit=9, kernel_level=""))
        finish(state, state.hand_out())
        assert state.take_batch(learner_version=0)
        state.evaluations.begin(TASKS[:2], temperature=0.0, version=0, pinned=True)
        finish(state, state.hand_out())
        evaluated = state.evaluations.take()
        assert evaluated is not None
        assert len(evaluated.finished) == 2
        assert state.take_batch(learner_version=1)
        state.evaluations.begin(TASKS[:2], temperature=0.0)
    return state


def places(folder: Path) -> tuple[Place, ...]:
    found = recover(folder, since=0)
    assert found.notes == ()
    return found.places


def test_batches_and_evaluations_come_when_they_did(tmp_path: Path) -> None:
    before = journaled(tmp_path)
    state = coordinator()
    replay = Replay(state, places(tmp_path))

    assert replay.batches == 2
    first = replay.batch(0)
    evaluated = replay.rest()
    second = replay.batch(1)
    after = replay.rest()

    assert [t.trajectory_id for t in first] == ["g000000-0-1", "g000000-1-1"]
    assert [t.trajectory_id for t in second] == ["g000001-0-1", "g000001-1-1"]
    assert evaluated is not None
    assert [t.trajectory_id for t in evaluated.finished] == ["e000000-0-1", "e000000-1-1"]
    assert after is None
    assert replay.batches == 0
    assert save_ledger(state) == save_ledger(before)


@pytest.mark.parametrize("after", [0, 1, 2], ids=lambda n: f"{n} answers before the checkpoint")
def test_an_evaluation_over_a_checkpoint_is_whole(tmp_path: Path, after: int) -> None:
    """Some of its answers are in the ledger, the others in the journal."""
    state = coordinator()
    state.join(Hello(actor_id="a0", session="s", schema_version=1, credit=9, kernel_level=""))
    state.version = 3
    state.evaluations.begin(TASKS[:2], temperature=0.0, version=3, pinned=True)
    leases = state.hand_out()[:2]
    finish(state, leases[:after])
    ledger = save_ledger(state)
    with JournalWriter(tmp_path) as writer:
        state.groups.note = lambda change: writer.append(to_record(change)) and None
        finish(state, leases[after:])
        finished = state.evaluations.take()

    later = coordinator()
    restore_ledger(later, ledger)
    played = Replay(later, places(tmp_path)).rest()

    assert played is not None
    assert finished is not None
    ids = [[t.trajectory_id for t in each.finished] for each in (played, finished)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2
    assert (played.version, finished.version) == (3, 3)
    assert not later.evaluations.is_under_way


def test_an_evaluation_that_a_ledger_or_a_journal_ends_in_is_under_way(tmp_path: Path) -> None:
    before = journaled(tmp_path)
    played, restored = coordinator(), coordinator()
    Replay(played, places(tmp_path)[:-1]).rest()
    restore_ledger(restored, save_ledger(before))

    assert before.evaluations.is_under_way
    assert restored.evaluations.is_under_way
    assert not played.evaluations.is_under_way


def test_a_batch_of_another_version_is_named(tmp_path: Path) -> None:
    journaled(tmp_path)
    replay = Replay(coordinator(), places(tmp_path))

    with pytest.raises(InputError, match=r"does not follow .*its batch is for version 0; remove"):
        replay.batch(3)


def test_a_journal_without_its_beginning_does_not_follow(tmp_path: Path) -> None:
    journaled(tmp_path)
    replay = Replay(coordinator(), places(tmp_path)[2:])

    with pytest.raises(InputError, match="record 0 of the journal does not follow"):
        replay.batch(0)


def test_a_task_file_that_was_changed_is_named(tmp_path: Path) -> None:
    journaled(tmp_path)
    others = [Task(task_id=f"x{i}", question="?", answers=("a",)) for i in range(3)]
    replay = Replay(coordinator(others), places(tmp_path))

    with pytest.raises(InputError, match=r"lease 'g000000-0-1' of task 't\d' .* task file changed"):
        replay.batch(0)


def test_a_file_that_went_after_it_was_looked_at_is_named(tmp_path: Path) -> None:
    journaled(tmp_path)
    found = places(tmp_path)
    found[0].segment.unlink()

    with pytest.raises(InputError, match=r"segment-000000\.journal' cannot be read at offset 32"):
        Replay(coordinator(), found).batch(0)


def test_a_record_that_changed_after_it_was_looked_at_is_named(tmp_path: Path) -> None:
    journaled(tmp_path)
    found = places(tmp_path)
    data = bytearray(found[1].segment.read_bytes())
    data[found[1].offset + 30] ^= 1
    found[1].segment.write_bytes(data)

    with pytest.raises(
        InputError,
        match=rf"read at offset {found[1].offset}: a record of \d+ bytes does not .*; remove the",
    ):
        Replay(coordinator(), found).batch(0)


def test_the_ten_lines_of_the_page_read_a_journal(tmp_path: Path) -> None:
    journaled(tmp_path)
    page = (ROOT / "docs" / "journal.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)

    def reads() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    done = reads()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(places(tmp_path))
    assert [int(line.split()[0]) for line in lines].count(6) == 2
    assert "'trajectories': ['g000000-0-1', 'g000000-1-1']" in done.stdout

    last = places(tmp_path)[-1]
    data = bytearray(last.segment.read_bytes())
    data[-1] ^= 1
    last.segment.write_bytes(data)
    assert f"damaged at {last.offset}" in reads().stderr


def test_a_ledger_from_before_the_journal_is_still_read() -> None:
    """It counted the leases that were out, among those that wait."""
    state = coordinator()
    state.join(Hello(actor_id="a0", session="s", schema_version=1, credit=3, kernel_level=""))
    finish(state, state.hand_out()[:1])
    ledger = msgpack.unpackb(save_ledger(state), strict_map_key=False)
    for group in ledger["groups"]:
        group["waiting"] += [index for index, _ in group["leased"].values()]
        group["leased"] = len(group["leased"])
    del ledger["journal"]
    del ledger["evaluation"]
    earlier = msgpack.packb({**ledger, "format": 4, "late": 2})

    now, then = coordinator(), coordinator()
    for restored, saved in ((now, save_ledger(state)), (then, earlier)):
        restore_ledger(restored, saved)
        restored.begin(0.0)

    waiting = [[group.waiting for group in s.groups.open_groups.values()] for s in (now, then)]
    assert now.counters.dropped == {}, "its session may come back"
    assert waiting[0] == [[], [1]]
    assert then.counters.dropped == {"lost_at_restart": 4}, "nobody knows who held them"
    assert waiting[1] == [[1], [0, 1]]
