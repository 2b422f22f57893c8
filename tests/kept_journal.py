"""A run folder with a real journal of three steps, without a learner; and ways to damage it."""

import struct
import zlib
from pathlib import Path

import msgpack

from common.config import Config, Run
from common.config_file import save_config
from common.telemetry.writers import StepLines
from common.wire.records import Outcome, Task
from common.wire.session import Hello
from launch.run.folder import RunFolder, RunState
from learner.checkpoints.files import LEDGER, checkpoint_name
from learner.coordination.changes import to_record
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.ledger import COORDINATOR, save_ledger
from learner.journal.format import RECORD_HEADER_BYTES
from learner.journal.segments import Place
from learner.journal.writer import JournalWriter
from tests.makers import make_trajectory

STEPS = 3
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(3)]
_HEADER = struct.Struct("<IIIII")


def make_journal(folder: Path, *, keep: bool = True) -> RunFolder:
    """Groups of two, one a batch; checkpoints after steps 1 and 2, an evaluation after step 1.

    The first lease of step 2 fails once. Of a checkpoint there is the ledger alone.
    """
    run = RunFolder(folder / "run")
    run.path.mkdir()
    save_config(Config(run=Run(keep_journal=keep)), run.config)
    run.write_state(RunState(status="finished", started_at=0.0))
    state = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=1, group_size=2, max_staleness=0,
        total_batches=STEPS, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    batches = StepLines(run.batches, after_step=0)
    with JournalWriter(run.journal, keep=keep) as writer:
        state.groups.note = lambda change: writer.append(to_record(change)) and None
        state.join(Hello(actor_id="a0", session="s", schema_version=1, credit=2, kernel_level=""))
        for step in range(1, STEPS + 1):
            if step == 2:
                _answer(state, step, failures=1)
            _answer(state, step)
            batch = state.take_batch(learner_version=step - 1)
            assert batch is not None
            batches.append({"step": step, "trajectories": [t.trajectory_id for t in batch]})
            state.version = step
            if step < STEPS:
                _keep_ledger(run, state, step, writer.begin_segment(step))
            if step == 1:
                state.evaluations.begin(TASKS[:2], temperature=0.0, version=1, pinned=True)
                _answer(state, step)
                assert state.evaluations.take() is not None
    batches.close()
    return run


def _answer(state: Coordinator, step: int, *, failures: int = 0) -> None:
    """Answer what is handed out, the first ``failures`` of it with a failure of the machinery."""
    for number, (_, lease) in enumerate(state.hand_out()):
        made = make_trajectory(
            lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
            task_id=lease.task.task_id, purpose=lease.purpose, version=step - 1,
            outcome=Outcome.INFRASTRUCTURE if number < failures else Outcome.SUBMITTED,
        )  # fmt: skip
        state.receive("a0#s", made, learner_version=step - 1)


def _keep_ledger(run: RunFolder, state: Coordinator, step: int, serial: int) -> None:
    folder = run.checkpoints / checkpoint_name(step)
    folder.mkdir(parents=True)
    ledger = msgpack.packb({COORDINATOR: save_ledger(state, journal=serial)})
    (folder / LEDGER).write_bytes(ledger)


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def forge(place: Place, at: int) -> None:
    """Change one byte of a record's body, and make its checksums right again."""
    data = bytearray(place.segment.read_bytes())
    head, body = place.offset, place.offset + RECORD_HEADER_BYTES
    data[body + at] ^= 1
    length, kind, frames, _, _ = _HEADER.unpack_from(data, head)
    check = zlib.crc32(data[body : body + length])
    start = _HEADER.pack(length, kind, frames, check, 0)[:-4]
    data[head:body] = start + struct.pack("<I", zlib.crc32(start))
    place.segment.write_bytes(data)
