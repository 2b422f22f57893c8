"""A checkpoint of any number of ranks loads at any other, and its ranks fail together."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor

from common.config import Learner
from common.errors import LZeroError
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import find_damage
from learner.checkpoints.resume import load_checkpoint, load_newest
from learner.checkpoints.state import Progress
from learner.engine.mesh import Rank, arrange, training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import full_state_dict, shard
from tests.tiny_policy import make_model

pytestmark = pytest.mark.distributed

RunRanks = Callable[..., list[Any]]
LEARNER = Learner(learning_rate=0.1)


def build(rank: Rank, folder: str) -> tuple[torch.nn.Module, PolicyOptimizer]:
    model = shard(load_model(f"{folder}/model"), rank, compute_dtype=torch.float32)
    return model, PolicyOptimizer(model, LEARNER)


def take_steps(model: torch.nn.Module, optimizer: PolicyOptimizer, count: int) -> None:
    """Steps along gradients that differ from number to number, the same however it is sharded."""
    for _ in range(count):
        for parameter in model.parameters():
            parameter.grad = torch.sin(17 * parameter.detach())
        optimizer.step()


def everything(model: torch.nn.Module, optimizer: PolicyOptimizer) -> dict[str, Tensor]:
    """All weights and moments, whole, on every rank."""
    named = dict(model.named_parameters())
    state = {name: whole(parameter) for name, parameter in named.items()}
    for name, parameter in named.items():
        for kind, value in optimizer.adamw.state[parameter].items():
            state[f"{name}.{kind}"] = whole(value)
    return state


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def saver(rank: Rank, folder: str, name: str, built: tuple[Any, PolicyOptimizer]) -> Checkpointer:
    return Checkpointer(
        Path(folder) / name, built[0], built[1], rank,
        model_source=Path(folder) / "model", export_dtype=torch.float32, keep=2,
    )  # fmt: skip


def at(step: int) -> Progress:
    return Progress(step=step, weight_version=step, ledger=b"of rank 0")


def save_at_three(rank: Rank, folder: str, by_one: str) -> dict[str, Any]:
    """Save sharded and replicated; load what one process saved; then fail on one rank."""
    sharded = build(rank, folder)
    take_steps(*sharded, count=2)
    with saver(rank, folder, "by-three", sharded) as checkpointer:
        checkpointer.save(
            at(2) if rank.is_first else Progress(step=0, weight_version=0, ledger=b"")
        )
    result: dict[str, Any] = {"three": everything(*sharded)}

    copies = arrange(rank.device, replicas=3)
    replicated = build(copies, folder)
    take_steps(*replicated, count=2)
    with saver(copies, folder, "by-copies", replicated) as checkpointer:
        checkpointer.save(at(2))
    result["copies"] = everything(*replicated)

    loaded = build(rank, folder)
    result["progress"] = load_checkpoint(Path(by_one), *loaded, rank)
    result["one at three"] = everything(*loaded)
    result["errors"] = fail_on_rank_one(rank, folder, sharded)
    result["after damage"] = load_newest(Path(folder) / "failing", *sharded, rank)
    return result


def fail_on_rank_one(rank: Rank, folder: str, built: tuple[Any, PolicyOptimizer]) -> list[str]:
    """The writer of rank 1 is killed during a save; every rank tells what it heard."""
    heard = []
    with saver(rank, folder, "failing", built) as checkpointer:
        checkpointer.save(at(1))
        checkpointer.finish()
        pid = checkpointer.writer_pid
        assert pid is not None
        if rank.index == 1:
            os.kill(pid, signal.SIGSTOP)
        checkpointer.save(at(2))
        if rank.index == 1:
            os.kill(pid, signal.SIGKILL)
        try:
            checkpointer.save(at(3))
        except LZeroError as error:
            heard.append(str(error))
        checkpointer.save(at(4))
        checkpointer.finish()
    if rank.index == 2:
        file = Path(folder) / "failing" / "step-000004" / "state" / "rank-00002.safetensors"
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    torch.distributed.barrier()
    return heard


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_checkpoints_move_between_numbers_of_ranks_and_copies_bit_for_bit(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    make_model(tmp_path / "model")
    folder = str(tmp_path)
    with training_processes() as rank:
        one = build(rank, folder)
        take_steps(*one, count=3)
        with saver(rank, folder, "by-one", one) as checkpointer:
            by_one = checkpointer.save(at(3))
        expected = everything(*one)

    ranks = run_ranks(save_at_three, 3, folder, str(by_one))

    for result in ranks:
        assert result["progress"] == at(3)
        assert_equal(result["one at three"], expected)
    for name, key in (("by-three", "three"), ("by-copies", "copies")):
        checkpoint = tmp_path / name / "step-000002"
        assert find_damage(checkpoint) == []
        with training_processes() as rank:
            loaded = build(rank, folder)
            assert load_checkpoint(checkpoint, *loaded, rank) == at(2)
            assert_equal(everything(*loaded), ranks[0][key])
            exported = load_file(checkpoint / "hf" / "model.safetensors")
            assert_equal(exported, full_state_dict(loaded[0]))
    check_sizes(tmp_path)
    check_failure(ranks)


def check_sizes(tmp_path: Path) -> None:
    """Sharded, every rank writes its part; replicated, the first copy writes everything."""
    sizes = {
        name: [path.stat().st_size for path in sorted((tmp_path / name).glob("*/state/*"))]
        for name in ("by-one", "by-three", "by-copies")
    }
    assert max(sizes["by-three"]) < 0.6 * sizes["by-one"][0]
    assert max(sizes["by-copies"][1:]) < 200


def check_failure(ranks: list[dict[str, Any]]) -> None:
    """All ranks heard of the killed writer, and agree on the checkpoint before a damaged one."""
    for result in ranks:
        (heard,) = result["errors"]
        assert "step-000002' could not be written, those before it are kept" in heard
        assert "signal 9" in heard
        assert result["after damage"] == at(1)
