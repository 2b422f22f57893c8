"""A save is a copy: it is written beside training, and what goes wrong with it is heard of."""

import os
import resource
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from common.config import Learner
from common.errors import LZeroError, MachineError
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import find_damage
from learner.checkpoints.job import Job
from learner.checkpoints.process import WriterProcess
from learner.checkpoints.resume import load_checkpoint
from learner.checkpoints.state import Progress
from learner.checkpoints.writer import part_name, write_part
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import full_state_dict, shard
from tests.saved_checkpoint import latest_checkpoint
from tests.tiny_policy import make_model


def build(folder: Path, rank: Rank) -> tuple[torch.nn.Module, PolicyOptimizer]:
    model = shard(load_model(folder), rank, compute_dtype=torch.float32)
    return model, PolicyOptimizer(model, Learner(learning_rate=0.1))


def checkpointer_of(
    tmp_path: Path, model: torch.nn.Module, optimizer: PolicyOptimizer, rank: Rank
) -> Checkpointer:
    return Checkpointer(
        tmp_path / "checkpoints", model, optimizer, rank,
        model_source=tmp_path / "model", export_dtype=torch.float32, keep=2,
    )  # fmt: skip


def at(step: int) -> Progress:
    return Progress(step=step, weight_version=step, ledger=b"ledger of %d" % step)


def take_step(model: torch.nn.Module, optimizer: PolicyOptimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()


@contextmanager
def stopped_writer(checkpointer: Checkpointer) -> Iterator[int]:
    """The writer's process, stopped until the end of the block."""
    pid = checkpointer.writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_save_returns_before_it_is_written_and_keeps_what_was_there_at_its_call(
    tmp_path: Path,
) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        take_step(model, optimizer)
        expected = full_state_dict(model)
        with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
            with stopped_writer(checkpointer):
                written = checkpointer.save(at(1))
                take_step(model, optimizer)
                assert latest_checkpoint(tmp_path / "checkpoints") is None
            checkpointer.finish()

        after = full_state_dict(model)
        progress = load_checkpoint(written, model, optimizer, rank)
        loaded = full_state_dict(model)

    assert progress == at(1)
    assert optimizer.applied == 1
    assert any(not torch.equal(after[name], expected[name]) for name in expected)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_leaving_the_block_finishes_the_save_under_way(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
            written = checkpointer.save(at(1))

    assert find_damage(written) == []


def test_one_in_so_many_steps_and_the_best_stay_beside_the_newest(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    scores: dict[int, float] = {}
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with Checkpointer(
            tmp_path / "checkpoints", model, optimizer, rank, model_source=tmp_path / "model",
            export_dtype=torch.float32, keep=1, keep_every=3, scores=lambda: scores,
        ) as checkpointer:  # fmt: skip
            for step in range(1, 6):
                checkpointer.save(at(step))
                scores[step] = 1 / step

    stayed = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert stayed == {"step-000001", "step-000003", "step-000005"}


def test_an_error_of_training_does_not_lose_the_save_under_way(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with pytest.raises(RuntimeError, match="of training"):
            save_and_fail(checkpointer_of(tmp_path, model, optimizer, rank))

    latest = latest_checkpoint(tmp_path / "checkpoints")
    assert latest is not None
    assert find_damage(latest) == []


def save_and_fail(checkpointer: Checkpointer) -> None:
    with checkpointer:
        checkpointer.save(at(1))
        raise RuntimeError("of training")


def test_a_killed_writer_is_reported_at_the_next_save_and_loses_only_its_own_save(
    tmp_path: Path,
) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
            first = checkpointer.save(at(1))
            checkpointer.finish()
            with stopped_writer(checkpointer) as pid:
                checkpointer.save(at(2))
                os.kill(pid, signal.SIGKILL)

            with pytest.raises(
                LZeroError,
                match=r"step-000002' could not be written, those before it are kept: .* signal 9",
            ):
                checkpointer.save(at(3))

            assert latest_checkpoint(tmp_path / "checkpoints") == first
            assert find_damage(first) == []
            fourth = checkpointer.save(at(4))
    assert find_damage(fourth) == []
    assert not list((tmp_path / "checkpoints").glob("*.partial"))


def test_a_file_that_cannot_be_written_whole_names_the_cause(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
            first = checkpointer.save(at(1))
            checkpointer.finish()
            pid = checkpointer.writer_pid
            assert pid is not None
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (10_000, hard))
            checkpointer.save(at(2))

            with pytest.raises(MachineError, match=r"step-000002' .* File too large"):
                checkpointer.finish()

            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
            third = checkpointer.save(at(3))
            checkpointer.finish()
    assert find_damage(first) == find_damage(third) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "checkpoints").write_text("in the way")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
            checkpointer.save(at(1))

            with pytest.raises(MachineError, match=r"step-000001' could not .* Not a directory"):
                checkpointer.finish()

            (tmp_path / "checkpoints").unlink()
            second = checkpointer.save(at(2))
    assert find_damage(second) == []


def test_a_ledger_larger_than_the_state_finds_room(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    ledger = bytes(range(256)) * 200_000
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
            checkpointer.save(at(1))
            written = checkpointer.save(Progress(step=2, weight_version=2, ledger=ledger))
        expected = full_state_dict(model)

        progress = load_checkpoint(written, model, optimizer, rank)

        loaded = full_state_dict(model)
    assert progress.ledger == ledger
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_a_full_disk_is_named_and_does_not_cost_the_checkpoint_before(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    disk = tmp_path / "checkpoints"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system takes privileges")
    try:
        with training_processes() as rank:
            model, optimizer = build(tmp_path / "model", rank)
            with checkpointer_of(tmp_path, model, optimizer, rank) as checkpointer:
                first = checkpointer.save(at(1))
                checkpointer.finish()
                (disk / "other.bin").write_bytes(b"x" * 600_000)
                checkpointer.save(at(2))
                with pytest.raises(MachineError, match="No space left on device"):
                    checkpointer.finish()
        assert find_damage(first) == []
        assert latest_checkpoint(disk) == first
    finally:
        subprocess.run(["umount", str(disk)], check=True)


KILLED_DURING_A_SAVE = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from learner.engine.mesh import training_processes
    from tests.unit.test_checkpointer import at, build, checkpointer_of

    folder = Path(sys.argv[1])
    with training_processes() as rank:
        model, optimizer = build(folder / "model", rank)
        checkpointer = checkpointer_of(folder, model, optimizer, rank).__enter__()
        checkpointer.save(at(1))
        checkpointer.finish()
        os.kill(checkpointer.writer_pid, signal.SIGSTOP)
        checkpointer.save(at(2))
        print(checkpointer.writer_pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
)


def test_a_killed_rank_takes_its_writer_along_and_leaves_the_checkpoint_before(
    tmp_path: Path,
) -> None:
    make_model(tmp_path / "model")
    root = Path(__file__).parents[2]

    with subprocess.Popen(
        [sys.executable, "-c", KILLED_DURING_A_SAVE, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
        text=True,
    ) as process:
        assert process.stdout is not None
        # The writer holds the same pipe: this returns when both are gone.
        writer = int(process.stdout.readline())
        assert process.wait(60) == -signal.SIGKILL

    assert wait_for_end(writer)
    checkpoints = tmp_path / "checkpoints"
    assert (checkpoints / "step-000002.partial").is_dir()
    latest = latest_checkpoint(checkpoints)
    assert latest == checkpoints / "step-000001"
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        assert load_checkpoint(latest, model, optimizer, rank) == at(1)


def wait_for_end(pid: int) -> bool:
    """Whether a process, which is not ours, ends or has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 30)[0])
    finally:
        os.close(handle)


def test_data_of_many_blocks_are_written_in_order(tmp_path: Path) -> None:
    data = bytes(range(251)) * 40_000
    buffer = os.memfd_create("test")
    os.write(buffer, data + b"what follows is not data")
    (tmp_path / "state").mkdir()
    job = Job(partial=str(tmp_path), rank=3, ranks=4, header="{}", data_bytes=len(data))

    try:
        write_part(job, buffer)
    finally:
        os.close(buffer)

    assert len(data) > 2 * (4 << 20)
    assert (tmp_path / "state" / part_name(3)).read_bytes() == b"\x02" + b"\x00" * 7 + b"{}" + data


def test_the_writer_is_this_checkouts_whatever_other_learner_is_installed_or_lies_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path / "here", tmp_path / "installed"):
        (folder / "learner").mkdir(parents=True)
        (folder / "learner" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    monkeypatch.chdir(tmp_path / "here")
    state = tmp_path / "step.partial" / "state"
    state.mkdir(parents=True)
    buffer = os.memfd_create("buffer")
    writer = WriterProcess(buffer, tmp_path)
    try:
        writer.submit(Job(partial=str(state.parent), rank=0, ranks=1, header="{}", data_bytes=0))
        answer = writer.wait(timeout_s=60)
    finally:
        writer.kill()
        os.close(buffer)

    assert answer is not None
    assert answer.error == ""
    assert (state / part_name(0)).is_file()
