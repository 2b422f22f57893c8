"""Actions of every kind keep their tokens, versions and scores through packing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Apg, Objective
from common.wire.records import NOT_AN_ACTION, Segment
from learner.engine.model import load_model, score_targets, token_logprobs
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions, measure_ratios
from learner.packs.packing import (
    Pack,
    PackableSegment,
    pack_for_ranks,
    pack_segments,
    segment_of_actions,
)
from tests.tiny_policy import make_model, make_trajectories

N = NOT_AN_ACTION


def segment_of(actions: list[int], versions: list[int], logprobs: list[float]) -> Segment:
    """Tokens 1, 2, 3, ... of which some belong to actions."""
    return Segment(
        token_ids=np.arange(1, len(actions) + 1, dtype=np.int32),
        action_index=np.array(actions, dtype=np.int32),
        behaviour_logprobs=np.array(logprobs, dtype=np.float32),
        versions=np.array(versions, dtype=np.int32),
    )


def packable(segment: Segment, first_action_id: int = 0) -> PackableSegment:
    return segment_of_actions(segment, name="x", first_action_id=first_action_id)


def sampled_of(pack: Pack, advantages: list[float], *, version: int = 9) -> SampledActions:
    return SampledActions(
        behaviour_logprobs=pack.behaviour_logprobs,
        action_ids=pack.action_ids,
        versions=pack.versions,
        advantages=torch.tensor(advantages),
        learner_version=version,
        max_staleness=4,
    )


def sums_by_loop(packs: list[Pack], scores: list[Tensor], count: int) -> list[float]:
    """Sum of log-probabilities of each action, in the order of the tokens."""
    sums = [0.0] * count
    for pack, logprobs in zip(packs, scores, strict=True):
        for action, logprob in zip(pack.action_ids.tolist(), logprobs.tolist(), strict=True):
            sums[action] += logprob
    return sums


@pytest.mark.parametrize(("budget", "ranks"), [(24, 1), (40, 3), (1000, 2)])
def test_sums_of_actions_are_the_same_in_every_packing(
    budget: int, ranks: int, tmp_path: Path
) -> None:
    """Random trajectories: several actions per segment, segments per trajectory, versions."""
    make_model(tmp_path)
    model = load_model(tmp_path)
    trajectories = make_trajectories(groups=2, size=4)
    firsts = np.cumsum([0, *(len(t.step_rewards) for t in trajectories)]).tolist()
    segments = [
        packable(segment, first)
        for trajectory, first in zip(trajectories, firsts[:-1], strict=True)
        for segment in trajectory.segments
    ]
    alone = [pack_segments([segment], budget=100)[0] for segment in segments]
    packs = [p for each in pack_for_ranks(segments, budget=budget, ranks=ranks) for p in each]

    with torch.no_grad():
        found = sums_by_loop(packs, [token_logprobs(model, p) for p in packs], firsts[-1])
        expected = sums_by_loop(alone, [token_logprobs(model, p) for p in alone], firsts[-1])

    assert any(len(t.segments) > 1 for t in trajectories)
    assert found == pytest.approx(expected, abs=1e-4)
    for field in ("versions", "behaviour_logprobs"):
        pairs = [
            sorted(
                (int(a), float(v))
                for p in some
                for a, v in zip(p.action_ids, getattr(p, field), strict=True)
            )
            for some in (packs, alone)
        ]
        assert pairs[0] == pairs[1]


def test_an_action_sampled_by_two_versions_is_as_stale_as_its_oldest_token() -> None:
    segment = segment_of([N, 0, 0, N, 1], [N, 7, 8, N, 9], [0, -1, -1, 0, -1])

    (pack,) = pack_segments([packable(segment)], budget=5)

    assert pack.versions.tolist() == [7, 8, 9]
    ratios = measure_ratios(torch.zeros(3), sampled_of(pack, [1.0, 1.0]), token_veto=1e4)
    assert ratios.staleness.tolist() == [2, 0]


def test_an_action_in_two_spans_is_one_action() -> None:
    segment = segment_of([N, 0, N, N, 0, 0], [N, 9, N, N, 9, 9], [0, -1, 0, 0, -2, -4])

    (pack,) = pack_segments([packable(segment, 3)], budget=6)

    assert pack.targets.tolist() == [1, 4, 5]
    assert pack.action_ids.tolist() == [3, 3, 3]
    ratios = measure_ratios(torch.zeros(3), sampled_of(pack, [0, 0, 0, 1.0]), token_veto=1e4)
    assert ratios.num_tokens.tolist() == [0, 0, 0, 3]
    assert ratios.log_rho[3].item() == pytest.approx(7.0)


def test_a_truncated_action_ends_with_its_segment(tmp_path: Path) -> None:
    """No token follows it; that after it in the pack is of another segment and not its target."""
    make_model(tmp_path)
    model = load_model(tmp_path)
    truncated = segment_of([N, N, 0, 0], [N, N, 9, 9], [0, 0, -1, -1])
    other = segment_of([N, 0, N], [N, 9, N], [0, -1, 0])

    (both,) = pack_segments([packable(truncated), packable(other, 1)], budget=7)
    (alone,) = pack_segments([packable(truncated)], budget=4)

    assert both.targets.tolist() == [2, 3, 5]
    torch.testing.assert_close(
        token_logprobs(model, both)[:2], token_logprobs(model, alone), rtol=1e-5, atol=1e-6
    )


def test_an_action_without_tokens_leaves_the_others_their_numbers() -> None:
    segment = segment_of([N, 0, N, 2], [N, 9, N, 9], [0, -1, 0, -1])

    (pack,) = pack_segments([packable(segment)], budget=4)

    assert pack.action_ids.tolist() == [0, 2]
    ratios = measure_ratios(torch.zeros(2), sampled_of(pack, [1.0, 1.0, 1.0]), token_veto=1e4)
    assert ratios.present.tolist() == [True, False, True]
    assert ratios.staleness.tolist() == [0, 0, 0]


def test_a_segment_without_actions_has_no_targets_and_a_gradient_of_zero(tmp_path: Path) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path)
    segment = segment_of([N, N, N], [N, N, N], [0, 0, 0])

    (pack,) = pack_segments([packable(segment)], budget=3)
    scores = score_targets(model, pack, with_entropy=True)
    (scores.logprobs.sum() + scores.entropies.sum()).backward()

    assert pack.num_targets == 0
    assert not pack.is_filler
    assert all(not bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("broken", [float("nan"), float("-inf")])
def test_an_action_that_is_not_finite_changes_no_gradient_of_the_others(
    broken: float, tmp_path: Path
) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path)
    owners, versions = [N, 0, 0, N, 1, 1], [N, 9, 9, N, 9, 9]
    gradients = []
    for logprob, advantage in ((broken, 1.0), (-3.0, 0.0)):
        segment = segment_of(owners, versions, [0, logprob, -3.0, 0, -3.0, -3.0])
        (pack,) = pack_segments([packable(segment)], budget=6)

        result = policy_loss(
            token_logprobs(model, pack),
            sampled_of(pack, [advantage, 1.0]),
            objective=Objective(apg=Apg(kappa=100.0)),
            normalisers=Normalisers(tokens=4, actions=2),
        )

        assert result.verdicts.ratios.not_finite.tolist() == [advantage != 0, False]
        gradients.append(torch.autograd.grad(result.loss, list(model.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert bool(one.isfinite().all())
        torch.testing.assert_close(one, other)
    assert any(bool(each.any()) for each in gradients[0])
