"""Every objective has one loss, gradient and set of diagnostics, however its batch is divided.

Over micro-batches of any size, in any order of trajectories, over one to four ranks, with ranks
that share packs (context parallelism) and with replicas (HSDP).
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from common.config import Apg, DecoupledPpo, Gspo, Learner, Objective, TokenTis, Topr
from learner.engine.mesh import Rank, arrange, training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer, UpdateReport
from learner.engine.sharding import shard
from learner.engine.shards import gather
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.step.train_step import TrainStep
from tests.tiny_policy import make_model, make_trajectories

pytestmark = pytest.mark.distributed

RunRanks = Callable[..., list[Any]]
# Random behaviour log-probabilities are far from the policy: wide regions keep some signal.
OBJECTIVES = {
    "apg": Objective(apg=Apg(kappa=1.0)),
    "apg by actions": Objective(
        loss_norm="actions", kl_behaviour=0.01, entropy=0.01, apg=Apg(kappa=1.0)
    ),
    "topr": Objective(name="topr", topr=Topr(kappa=1.0)),
    "token_tis": Objective(name="token_tis", token_tis=TokenTis(band=(0.05, 20.0))),
    "gspo": Objective(name="gspo", gspo=Gspo(clip=(0.9, 9.0))),
    "decoupled_ppo": Objective(
        name="decoupled_ppo", decoupled_ppo=DecoupledPpo(behaviour_cap=20.0)
    ),
}
ARRANGEMENTS = {"plain": (1, 1), "context": (1, 2), "replicas": (2, 1), "both": (2, 2)}
"""Replicas, and ranks that share a pack."""
GOLDEN_LEARNER = [[-0.5, -1.0], [-0.2, -0.3, -0.4], [-2.0]]
GOLDEN_BEHAVIOUR = [[-0.6, -0.9], [-0.2, -0.5, -0.1], [-1.5]]
GOLDEN_SLOPES = [-0.16666667, 0.07540312, -0.20217689]


class KeepsGradients(PolicyOptimizer):
    """An optimizer that can be asked for the gradients of its last step."""

    def __init__(self, model: nn.Module, config: Learner) -> None:
        super().__init__(model, config)
        self._model = model
        self.kept: dict[str, Tensor] = {}

    def step(self) -> UpdateReport:
        self.kept = gather(
            (name, p.grad) for name, p in self._model.named_parameters() if p.grad is not None
        )
        return super().step()


def learn(rank: Rank, folder: str, objective: Objective, pack_tokens: int) -> dict[str, Any]:
    """Diagnostics and gradients of one step; trajectories come in an order of their own."""
    config = Learner(
        pack_tokens=pack_tokens, learning_rate=1e-3, max_staleness=1, warmup_steps=1,
        ranks=rank.count,
    )  # fmt: skip
    trajectories = make_trajectories(groups=4, size=3, seed=2)
    random.Random(f"{pack_tokens}/{rank.count}").shuffle(trajectories)
    model = shard(load_model(folder), rank, compute_dtype=torch.float32)
    optimizer = KeepsGradients(model, config)
    step = TrainStep(model, optimizer, rank, config=config, objective=objective, temperature=0.8)
    metrics = step.run(trajectories if rank.is_first else None, version=5)
    if metrics is None:
        return {}
    ignored = ("pack_fill", "pack_fillers", "lockstep")
    return {
        "packs": metrics.tally.packs,
        "numbers": {k: v for k, v in metrics.diagnostics().items() if k not in ignored}
        | {"loss": metrics.tally.loss, "masked": metrics.masked_share},
        "gradients": optimizer.kept,
    }


def golden_loss(rank: Rank, norm: Any) -> dict[str, Any]:
    """Actions in turn to the ranks, of which some may have none; the sum of their losses."""
    mine = list(range(rank.index, 3, rank.count))
    learner = torch.tensor([x for i in mine for x in GOLDEN_LEARNER[i]], requires_grad=True)
    owner = torch.tensor([i for i in mine for _ in GOLDEN_LEARNER[i]], dtype=torch.int64)
    sampled = SampledActions(
        behaviour_logprobs=torch.tensor([x for i in mine for x in GOLDEN_BEHAVIOUR[i]]),
        action_ids=owner,
        versions=torch.zeros_like(owner),
        advantages=torch.tensor([1.0, -0.5, 2.0]),
        learner_version=0,
        max_staleness=0,
    )
    result = policy_loss(
        learner,
        sampled,
        objective=Objective(loss_norm=norm, apg=Apg(kappa=0.3)),
        normalisers=Normalisers(tokens=6, actions=3),
    )
    (gradient,) = torch.autograd.grad(result.loss, learner)
    total = result.loss.detach().clone()
    dist.all_reduce(total)
    return {
        "loss": total.item(),
        "slopes": list(zip(owner.tolist(), gradient.tolist(), strict=True)),
    }


def learn_in_every_way(rank: Rank, folder: str, arrangements: list[str]) -> dict[str, Any]:
    """All objectives in all arrangements, in one start of processes."""
    results: dict[str, Any] = {norm: golden_loss(rank, norm) for norm in ("tokens", "actions")}
    for name in arrangements:
        replicas, sharing = ARRANGEMENTS[name]
        arranged = arrange(rank.device, replicas=replicas, context_parallel=sharing)
        for key, objective in OBJECTIVES.items():
            results[f"{name}: {key}"] = learn(arranged, folder, objective, 40)
    return results


def assert_same_step(found: dict[str, Any], expected: dict[str, Any], what: str) -> None:
    assert found["numbers"].keys() == expected["numbers"].keys()
    for key, value in expected["numbers"].items():
        assert found["numbers"][key] == pytest.approx(value, rel=1e-4, abs=1e-6), (what, key)
    assert found["gradients"].keys() == expected["gradients"].keys()
    scale = max(float(gradient.abs().max()) for gradient in expected["gradients"].values())
    assert scale > 1e-3, what
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(
            found["gradients"][name], gradient, rtol=1e-3, atol=1e-5 * scale,
            msg=lambda m, n=name: f"{what}: {n}: {m}",
        )  # fmt: skip


def check_golden(results: list[dict[str, Any]]) -> None:
    for norm, loss in (("tokens", 0.58649097), ("actions", 1.01346568)):
        own = [result[norm] for result in results]
        assert [each["loss"] for each in own] == pytest.approx([loss] * len(own), abs=1e-6)
        slopes = sorted(pair for each in own for pair in each["slopes"])
        lengths = [len(GOLDEN_LEARNER[action]) for action, _ in slopes]
        scales = [1.0 if norm == "tokens" else 2 / length for length in lengths]
        assert [action for action, _ in slopes] == [0, 0, 1, 1, 1, 2]
        assert [slope for _, slope in slopes] == pytest.approx(
            [scale * GOLDEN_SLOPES[a] for scale, (a, _) in zip(scales, slopes, strict=True)],
            abs=1e-7,
        )


def one_process(folder: str) -> dict[str, Any]:
    """Every objective by one process with packs of three sizes, which must agree."""
    expected = {}
    with training_processes() as rank:
        check_golden([{norm: golden_loss(rank, norm) for norm in ("tokens", "actions")}])
        for name, objective in OBJECTIVES.items():
            expected[name] = learn(rank, folder, objective, 1000)
            for pack_tokens in (33, 70):
                other = learn(rank, folder, objective, pack_tokens)
                assert other["packs"] > expected[name]["packs"] == 1
                assert_same_step(other, expected[name], f"{name}, packs of {pack_tokens}")
    return expected


@pytest.mark.parametrize(
    ("ranks", "arrangements"),
    [
        (2, ["plain", "context"]),
        pytest.param(3, ["plain"], marks=pytest.mark.nightly),
        pytest.param(4, ["plain", "context", "replicas", "both"], marks=pytest.mark.nightly),
    ],
)
def test_v14_ranks_compute_what_one_process_computes(
    run_ranks: RunRanks, tmp_path: Path, ranks: int, arrangements: list[str]
) -> None:
    folder = str(tmp_path / "model")
    make_model(tmp_path / "model")

    expected = one_process(folder)
    results = run_ranks(learn_in_every_way, ranks, folder, arrangements)

    check_golden(results)
    for arrangement in arrangements:
        for name, own in expected.items():
            what = f"{arrangement}: {name}"
            assert_same_step(results[0][what], own, what)
            assert all(result[what] == {} for result in results[1:])
