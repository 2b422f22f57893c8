"""Ranks that share a pack get the scores and the gradients of one process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from common.config import Apg, Objective
from learner.engine.context_parallel import context_ranks, gather_scores
from learner.engine.context_shares import share_of
from learner.engine.mesh import Rank
from learner.engine.model import load_model, score_targets
from learner.engine.sharding import shard
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.packs.packing import Pack, pack_segments, segment_of_examples
from tests.tiny_policy import VOCABULARY, make_model

pytestmark = pytest.mark.distributed

RunRanks = Callable[..., list[Any]]
PACKS = ([23, 1, 7, 40], [5, 64])


def make_pack(lengths: list[int]) -> Pack:
    rng = np.random.default_rng(sum(lengths))
    segments = [
        segment_of_examples(
            rng.integers(0, VOCABULARY, length).astype(np.int32),
            np.concatenate([[0.0], rng.integers(0, 2, length - 1)]).astype(np.float32),
            name=str(length),
        )
        for length in lengths
    ]
    (pack,) = pack_segments(segments, budget=max(1, sum(lengths)))
    return pack


def loss_of(logprobs: Tensor, entropies: Tensor) -> Tensor:
    slopes = torch.linspace(-1, 1, len(logprobs))
    return (slopes * logprobs).sum() + (slopes.flip(0) * entropies).sum()


def by_one_process(folder: Path) -> dict[str, Any]:
    """Scores and gradients of all packs in a plain, unsharded model."""
    model = load_model(folder)
    scores = [score_targets(model, make_pack(each), temperature=0.7, with_entropy=True)
              for each in PACKS]  # fmt: skip
    sum(loss_of(*each) for each in scores).backward()  # type: ignore[union-attr]
    return {"scores": [torch.stack(each) for each in scores], "gradients": gradients_of(model)}


def by_sharing_ranks(
    rank: Rank, folder: str, count: int, *, half: bool = False, recompute: bool = False
) -> dict[str, Any]:
    """The same with each pack on ``count`` ranks; groups of ranks take packs in turn."""
    context = context_ranks(rank.index, rank.count, count, "cpu")
    kind = torch.bfloat16 if half else torch.float32
    model = load_model(folder)
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    shard(model, rank, compute_dtype=kind)
    groups = rank.count // count
    mine = [*PACKS, *[[]] * groups][rank.index // count :: groups]
    found = []
    for lengths in mine[: 1 + len(PACKS) // groups]:
        scores = score_targets(
            model, make_pack(lengths), temperature=0.7, with_entropy=True, context=context
        )
        assert scores.entropies is not None
        (loss_of(scores.logprobs, scores.entropies) * rank.count).backward()
        found.append(torch.stack([scores.logprobs, scores.entropies]).detach())
    return {"scores": found, "gradients": gradients_of(model)}


def gradients_of(model: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def loss_of_golden_actions(rank: Rank) -> dict[str, Any]:
    """Actions of 2, 3 and 1 tokens in one segment, so that the ranks hold parts of actions."""
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    learner = torch.tensor([-0.5, -1.0, -0.2, -0.3, -0.4, -2.0])
    pack = make_golden_pack()
    context = context_ranks(rank.index, rank.count, rank.count, "cpu")
    share = share_of(pack, context.index, context.count)
    own = learner[share.targets].requires_grad_()
    sampled = SampledActions(
        behaviour_logprobs=torch.tensor([-0.6, -0.9, -0.2, -0.5, -0.1, -1.5]),
        action_ids=owner,
        versions=torch.zeros_like(owner),
        advantages=torch.tensor([1.0, -0.5, 2.0]),
        learner_version=0,
        max_staleness=0,
    )
    result = policy_loss(
        gather_scores(own, share, context.group),
        sampled,
        objective=Objective(apg=Apg(kappa=0.3)),
        normalisers=Normalisers(tokens=6, actions=3),
    )
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert own.grad is not None
    return {"loss": result.loss.item(), "targets": share.targets, "gradient": own.grad}


def make_golden_pack() -> Pack:
    segment = segment_of_examples(list(range(7)), [0.0] + [1.0] * 6, name="golden")
    (pack,) = pack_segments([segment], budget=7)
    return pack


def everything(rank: Rank, folder: str, counts: list[int]) -> dict[str, Any]:
    """All that needs ranks, in one start of processes."""
    return {
        "golden": loss_of_golden_actions(rank),
        "half": by_sharing_ranks(rank, folder, rank.count, half=True),
        "recomputed": by_sharing_ranks(rank, folder, rank.count, recompute=True),
        "single": {count: by_sharing_ranks(rank, folder, count) for count in counts},
    }


@pytest.mark.parametrize(
    ("ranks", "counts"), [(2, [2]), pytest.param(4, [4, 2], marks=pytest.mark.nightly)]
)
def test_ranks_that_share_packs_match_one_process(
    run_ranks: RunRanks, tmp_path: Path, ranks: int, counts: list[int]
) -> None:
    make_model(tmp_path)
    expected = by_one_process(tmp_path)

    results = run_ranks(everything, ranks, str(tmp_path), counts)

    for index, result in enumerate(results):
        for count in counts:
            own = expected["scores"][index // count :: ranks // count]
            check_close(result["single"][count], own, expected["gradients"])
        check_close(result["recomputed"], expected["scores"], expected["gradients"])
    for one, other in zip(results[0]["half"]["scores"], expected["scores"], strict=False):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.3)
    check_golden([result["golden"] for result in results])


def check_close(found: dict[str, Any], scores: list[Tensor], gradients: dict[str, Tensor]) -> None:
    for one, other in zip(found["scores"], [*scores, torch.zeros(2, 0)], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert found["gradients"].keys() == gradients.keys()
    for name, gradient in found["gradients"].items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-4, atol=1e-4, msg=name)


def check_golden(results: list[dict[str, Any]]) -> None:
    """The loss and the slopes by hand, on every rank for the targets it holds."""
    slopes = torch.tensor([-0.16666667] * 2 + [0.07540312] * 3 + [-0.20217689])
    assert sorted(torch.cat([each["targets"] for each in results]).tolist()) == list(range(6))
    for each in results:
        assert each["loss"] == pytest.approx(0.58649097, abs=1e-7)
        torch.testing.assert_close(each["gradient"], slopes[each["targets"]])
