"""Two gloo ranks compute what one process computes, and checkpoints move between them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from common.config import Apg, Learner, Objective
from learner.checkpoints.resume import load_checkpoint
from learner.checkpoints.state import Progress
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import full_state_dict, shard
from learner.step.train_step import TrainStep
from tests.saved_checkpoint import latest_checkpoint, save_checkpoint
from tests.tiny_policy import make_model, make_trajectories

pytestmark = pytest.mark.distributed

RunRanks = Callable[..., list[Any]]
CONFIG = Learner(pack_tokens=48, learning_rate=1e-2, max_staleness=1, warmup_steps=2)
# Random behaviour log-probabilities are far from the policy: a wide trust region keeps signal.
OBJECTIVE = Objective(apg=Apg(kappa=100.0))


def build(rank: Rank, folder: str) -> tuple[torch.nn.Module, PolicyOptimizer, TrainStep]:
    model = shard(load_model(folder), rank, compute_dtype=torch.float32)
    optimizer = PolicyOptimizer(model, CONFIG)
    step = TrainStep(model, optimizer, rank, config=CONFIG, objective=OBJECTIVE, temperature=0.8)
    return model, optimizer, step


def take_steps(rank: Rank, step: TrainStep, first: int, count: int) -> list[dict[str, Any]]:
    records = []
    for number in range(first, first + count):
        trajectories = make_trajectories(seed=number, version=number + 3)
        metrics = step.run(trajectories if rank.is_first else None, version=number + 3)
        if metrics is not None:
            assert metrics.update is not None
            records.append(
                metrics.diagnostics()
                | dataclasses.asdict(metrics.update)
                | {"loss": metrics.tally.loss, "stale": metrics.tally.too_stale}
            )
    return records


def train_save_and_go_on(rank: Rank, folder: str, checkpoints: str) -> dict[str, Any]:
    """Two steps, a checkpoint, a third step."""
    model, optimizer, step = build(rank, folder)
    records = take_steps(rank, step, 0, 2)
    progress = Progress(step=2, weight_version=5, ledger=b"places of tasks")
    save_checkpoint(
        Path(checkpoints), progress, model, optimizer, rank,
        model_source=Path(folder), export_dtype=torch.float32, keep=2,
    )  # fmt: skip
    after_two = full_state_dict(model)
    records += take_steps(rank, step, 2, 1)
    return {"two": after_two, "three": full_state_dict(model), "records": records}


def load_and_go_on(rank: Rank, folder: str, checkpoints: str) -> dict[str, Any]:
    """Load the latest checkpoint and take the third step."""
    model, optimizer, step = build(rank, folder)
    latest = latest_checkpoint(Path(checkpoints))
    assert latest is not None
    progress = load_checkpoint(latest, model, optimizer, rank)
    loaded = full_state_dict(model)
    records = take_steps(rank, step, 2, 1)
    return {
        "progress": progress,
        "two": loaded,
        "three": full_state_dict(model),
        "records": records,
    }


def gradients_of_one_segment(rank: Rank, folder: str) -> list[Tensor]:
    """Gradients of a batch that fills one pack; a second rank has only a filler."""
    model, optimizer, step = build(rank, folder)
    optimizer.adamw.step = lambda: None  # type: ignore[method-assign,assignment]
    optimizer.adamw.zero_grad = lambda: None  # type: ignore[method-assign,assignment]
    trajectories = make_trajectories(groups=1, size=2, seed=4)[:2] if rank.is_first else None
    step.run(trajectories, version=5)
    return [whole(parameter.grad) for parameter in model.parameters()]


def whole(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad.full_tensor() if isinstance(grad, DTensor) else grad


def everything_on_two_ranks(rank: Rank, folder: str, by_one: str, by_two: str) -> dict[str, Any]:
    """All that needs two ranks, in one start of processes."""
    return {
        "trained": train_save_and_go_on(rank, folder, by_two),
        "resumed": load_and_go_on(rank, folder, by_one),
        "gradients": gradients_of_one_segment(rank, folder),
    }


def assert_same_weights(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-4, atol=1e-5)


def test_two_ranks_match_one_process_and_exchange_checkpoints(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    folder, by_one, by_two = (str(tmp_path / name) for name in ("model", "by-one", "by-two"))
    make_model(tmp_path / "model")
    with training_processes() as rank:
        one = train_save_and_go_on(rank, folder, by_one)
        one_gradients = gradients_of_one_segment(rank, folder)

    first, other = run_ranks(everything_on_two_ranks, 2, folder, by_one, by_two)
    with training_processes() as rank:
        one_from_two = load_and_go_on(rank, folder, by_two)

    two, two_from_one = first["trained"], first["resumed"]
    assert other["trained"]["two"] == {}
    assert other["trained"]["records"] == []
    for record_one, record_two in zip(one["records"], two["records"], strict=True):
        for key in (
            "loss",
            "gradient_norm",
            "rho_mean",
            "k3",
            "stale",
            "abs_d_max",
            "ess/positive",
        ):
            assert record_one[key] == pytest.approx(record_two[key], rel=1e-4), key
        assert record_one["applied"]
    assert_same_weights(one["two"], two["two"])
    assert_same_weights(one["three"], two["three"])
    for resumed, original in ((two_from_one, one), (one_from_two, two)):
        assert resumed["progress"] == Progress(step=2, weight_version=5, ledger=b"places of tasks")
        assert all(torch.equal(resumed["two"][k], original["two"][k]) for k in original["two"])
        assert_same_weights(resumed["three"], original["three"])
        assert resumed["records"][0]["learning_rate"] == original["records"][2]["learning_rate"]
    for expected, found in zip(one_gradients, first["gradients"], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert all(bool(gradient.abs().max() > 0) for gradient in one_gradients)
