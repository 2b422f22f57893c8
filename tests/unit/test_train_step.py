"""A step depends on its batch alone, not on how the batch is packed, ordered or reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Apg, Learner, Objective
from common.wire.records import NOT_AN_ACTION, Outcome, Segment, Trajectory
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model, token_logprobs
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import full_state_dict, shard
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.packs.batch import build_batch
from learner.packs.packing import pack_segments, segment_of_actions
from learner.step.metrics import PackingReport, StepMetrics
from learner.step.tally import Tally, tally_pack
from learner.step.train_step import TrainStep
from tests.tiny_policy import make_model, make_trajectories

WIDE = Objective(apg=Apg(kappa=100.0))


def step_once(
    folder: Path, trajectories: list[Trajectory], *, pack_tokens: int = 64, version: int = 5
) -> tuple[StepMetrics, dict[str, Tensor]]:
    """Metrics and weights after one step of a fresh model in this process."""
    config = Learner(pack_tokens=pack_tokens, learning_rate=1e-2, max_staleness=2, warmup_steps=1)
    with training_processes() as rank:
        metrics, weights = _step(folder, trajectories, config, rank, version)
    return metrics, weights


def _step(
    folder: Path, trajectories: list[Trajectory], config: Learner, rank: Rank, version: int
) -> tuple[StepMetrics, dict[str, Tensor]]:
    model = shard(load_model(folder), rank, compute_dtype=torch.float32)
    optimizer = PolicyOptimizer(model, config)
    step = TrainStep(model, optimizer, rank, config=config, objective=WIDE, temperature=1.0)
    metrics = step.run(trajectories, version=version)
    assert metrics is not None
    return metrics, full_state_dict(model)


@pytest.mark.parametrize("pack_tokens", [33, 64, 4096])
def test_packing_changes_neither_gradient_nor_metrics(pack_tokens: int, tmp_path: Path) -> None:
    make_model(tmp_path)
    trajectories = make_trajectories()
    reference, weights = step_once(tmp_path, trajectories, pack_tokens=48)

    metrics, found = step_once(tmp_path, trajectories[::-1], pack_tokens=pack_tokens)

    assert metrics.update is not None
    assert reference.update is not None
    assert metrics.tally.loss == pytest.approx(reference.tally.loss, rel=1e-4)
    assert metrics.update.gradient_norm == pytest.approx(reference.update.gradient_norm, rel=1e-4)
    assert metrics.masked_share == reference.masked_share
    assert metrics.batch == reference.batch
    for key, value in reference.diagnostics().items():
        if not key.startswith("pack_"):
            assert metrics.diagnostics()[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
    for name, tensor in weights.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-4)


def test_a_batch_without_signal_leaves_weights_untouched(tmp_path: Path) -> None:
    stock = make_model(tmp_path)
    equal = [replace(t, step_rewards=np.zeros_like(t.step_rewards)) for t in make_trajectories()]

    metrics, weights = step_once(tmp_path, equal)

    assert metrics.update is None
    assert metrics.batch.groups_without_signal == 3
    assert metrics.batch.staleness_max == 2
    assert all(torch.equal(weights[name], stock.state_dict()[name]) for name in weights)


def test_tokens_of_the_trained_version_show_no_mismatch(tmp_path: Path) -> None:
    make_model(tmp_path)
    trajectories = [replace(t, segments=t.segments[:1]) for t in make_trajectories(groups=1)]
    fresh = [_resample(tmp_path, t) for t in trajectories]

    metrics, _ = step_once(tmp_path, fresh)

    assert metrics.mismatch_max_abs == pytest.approx(0.0, abs=1e-5)
    assert metrics.effective_sample_size == pytest.approx(1.0, abs=1e-5)
    assert metrics.tally.fresh_tokens == metrics.tally.targets
    assert metrics.batch.staleness_max == 0


def _resample(folder: Path, trajectory: Trajectory) -> Trajectory:
    """The same tokens, as if version 5 of this very model had sampled them."""
    (segment,) = trajectory.segments
    packable = segment_of_actions(segment, name="x", first_action_id=0)
    (pack,) = pack_segments([packable], budget=64)
    logprobs = np.zeros(len(segment.token_ids), dtype=np.float32)
    logprobs[pack.targets.numpy()] = token_logprobs(load_model(folder), pack).detach().numpy()
    sampled = segment.action_index != NOT_AN_ACTION
    versions = np.where(sampled, 5, NOT_AN_ACTION).astype(np.int32)
    own = replace(segment, behaviour_logprobs=logprobs, versions=versions)
    return replace(trajectory, segments=(own,))


def test_only_segments_with_a_signal_are_packed_but_all_are_counted() -> None:
    trajectories = make_trajectories(groups=2)
    silent = [
        replace(t, step_rewards=np.zeros_like(t.step_rewards)) if t.group_id == "g0" else t
        for t in trajectories
    ]

    batch = build_batch(silent, learner_version=5, objective=WIDE)

    dropped = sum(len(t.segments) for t in silent if t.group_id == "g0")
    assert batch.summary.segments_dropped == dropped
    assert batch.summary.groups_without_signal == 1
    assert len(batch.segments) == sum(len(t.segments) for t in silent) - dropped
    assert sum(batch.summary.staleness.values()) == batch.summary.actions
    assert batch.summary.actions == sum(len(t.step_rewards) for t in silent)
    kept = sum(int((s.action_ids != NOT_AN_ACTION).sum()) for s in batch.segments)
    assert batch.num_action_tokens == kept


def test_staleness_of_an_action_is_that_of_its_oldest_token() -> None:
    owner = np.array([NOT_AN_ACTION, 0, 0, 1], dtype=np.int32)
    segment = Segment(
        token_ids=np.arange(4, dtype=np.int32),
        action_index=owner,
        behaviour_logprobs=np.array([0, -1, -1, -1], dtype=np.float32),
        versions=np.array([NOT_AN_ACTION, 3, 5, 5], dtype=np.int32),
    )
    (template,) = make_trajectories(groups=1, size=1)
    two = replace(
        template,
        segments=(segment,),
        step_rewards=np.ones(2, dtype=np.float32),
        steps=(template.steps[0],) * 2,
    )

    summary = build_batch([two], learner_version=5, objective=WIDE).summary

    assert summary.staleness == {0: 1, 2: 1}
    assert summary.staleness_mean == 1.0


def test_an_infrastructure_failure_in_a_batch_is_refused() -> None:
    (one,) = make_trajectories(groups=1, size=1)

    with pytest.raises(ValueError, match=r"'g0/0' failed \(actor died\)"):
        build_batch(
            [replace(one, outcome=Outcome.INFRASTRUCTURE, failure="actor died")],
            learner_version=5,
            objective=WIDE,
        )


def test_an_action_over_two_segments_is_refused() -> None:
    (one,) = make_trajectories(groups=1, size=1)

    with pytest.raises(ValueError, match=r"actions \[0.*spread over several segments"):
        build_batch(
            [replace(one, segments=(one.segments[0], one.segments[0]))],
            learner_version=5,
            objective=WIDE,
        )


def test_tally_has_the_reference_estimates() -> None:
    behaviour = np.array([0, -0.12, -1.0, -0.05, -2.5, -0.9], dtype=np.float32)
    learner = torch.tensor([-0.1, -1.2, -0.05, -2.3, -0.7])
    owner = np.array([NOT_AN_ACTION, 0, 0, 0, 0, 0], dtype=np.int32)
    segment = Segment(
        token_ids=np.arange(6, dtype=np.int32),
        action_index=owner,
        behaviour_logprobs=behaviour,
        versions=np.array([NOT_AN_ACTION, 1, 1, 1, 2, 2], dtype=np.int32),
    )
    (pack,) = pack_segments([segment_of_actions(segment, name="x", first_action_id=0)], budget=6)
    sampled = SampledActions(
        behaviour_logprobs=pack.behaviour_logprobs,
        action_ids=pack.action_ids,
        versions=pack.versions,
        advantages=torch.tensor([1.0, 1.0]),
        learner_version=2,
        max_staleness=2,
    )
    counts = Normalisers(tokens=5, actions=1)
    result = policy_loss(learner, sampled, objective=WIDE, normalisers=counts)

    tally = tally_pack(pack, learner, result.loss, result.verdicts, version=2)

    assert tally.actions == 1
    assert tally.rho == pytest.approx(1.24607673, rel=1e-5)
    assert tally.minus_d / tally.targets == pytest.approx(-0.044, abs=1e-6)
    assert tally.k3 / tally.targets == pytest.approx(0.01234752, abs=1e-6)
    assert tally.fresh_tokens == 2
    assert tally.fresh_abs_d == pytest.approx(0.4, abs=1e-6)
    assert tally.peak_abs_d == pytest.approx(0.2, abs=1e-6)


def test_effective_sample_size_of_uneven_weights() -> None:
    tally = Tally(actions=4, rho=12.0, rho_squared=84.0)
    batch = build_batch([], learner_version=0, objective=WIDE).summary

    metrics = StepMetrics(
        version=0,
        batch=batch,
        tally=tally,
        updates=(),
        seconds=1.0,
        packing=PackingReport(budget=8),
    )

    assert metrics.effective_sample_size == pytest.approx(12 / 7 / 4)
