"""Every objective through a whole optimizer step: packing, several updates, a reference model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Apg, DecoupledPpo, Gspo, Learner, Objective, Topr
from common.wire.records import NOT_AN_ACTION, Trajectory
from learner.engine.mesh import training_processes
from learner.engine.model import load_model, token_logprobs
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.reference import ReferenceModel, load_reference
from learner.engine.sharding import full_state_dict, shard
from learner.packs.batch import build_batch
from learner.packs.packing import pack_segments
from learner.step.metrics import StepMetrics, warnings_of
from learner.step.train_step import TrainStep
from tests.tiny_policy import make_model, make_trajectories

CONFIG = Learner(pack_tokens=64, learning_rate=1e-2, max_staleness=2, warmup_steps=1)
OBJECTIVES = {
    "apg": Objective(apg=Apg(kappa=100.0)),
    "topr": Objective(name="topr", topr=Topr(kappa=100.0)),
    "token_tis": Objective(name="token_tis"),
    "gspo": Objective(name="gspo", gspo=Gspo(clip=(0.9, 9.0))),
    "decoupled_ppo": Objective(
        name="decoupled_ppo", decoupled_ppo=DecoupledPpo(behaviour_cap=100.0)
    ),
}


def step_once(
    folder: Path,
    objective: Objective,
    *,
    with_reference: Path | None = None,
    trajectories: Sequence[Trajectory] | None = None,
    **changes: Any,
) -> tuple[StepMetrics, dict[str, Tensor]]:
    config = replace(CONFIG, **changes)
    with training_processes() as rank:
        model = shard(load_model(folder), rank, compute_dtype=torch.float32)
        reference: ReferenceModel | None = None
        if with_reference is not None:
            reference = load_reference(
                with_reference, rank, compute_dtype=torch.float32, temperature=1.0
            )
        step = TrainStep(
            model,
            PolicyOptimizer(model, config),
            rank,
            config=config,
            objective=objective,
            temperature=1.0,
            reference=reference,
        )
        metrics = step.run(trajectories or make_trajectories(), version=5)
        assert metrics is not None
        return metrics, full_state_dict(model)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_packing_changes_no_objective(name: str, tmp_path: Path) -> None:
    make_model(tmp_path)

    few, expected = step_once(tmp_path, OBJECTIVES[name], pack_tokens=512)
    many, found = step_once(tmp_path, OBJECTIVES[name], pack_tokens=33)

    assert many.tally.packs > few.tally.packs
    assert many.tally.loss == pytest.approx(few.tally.loss, rel=1e-4)
    assert many.tally.clipped_tokens == few.tally.clipped_tokens
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-3, atol=2e-4)


def test_two_updates_share_the_groups_of_a_batch(tmp_path: Path) -> None:
    make_model(tmp_path)
    objective = OBJECTIVES["apg"]

    once, weights = step_once(tmp_path, objective)
    twice, moved = step_once(tmp_path, objective, updates_per_batch=2)
    never, kept = step_once(tmp_path, objective, updates_per_batch=2, learning_rate=0.0)

    assert (len(once.updates), len(twice.updates)) == (1, 2)
    assert twice.tally.targets == once.tally.targets
    assert twice.batch == once.batch
    assert never.diagnostics()["rho_mean"] == pytest.approx(once.diagnostics()["rho_mean"])
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights[name], moved[name])
    assert not torch.equal(kept[name], moved[name])


def test_decoupled_ppo_clips_around_the_start_of_the_batch(tmp_path: Path) -> None:
    make_model(tmp_path)
    objective = Objective(
        name="decoupled_ppo", decoupled_ppo=DecoupledPpo(clip=1e-4, behaviour_cap=100.0)
    )

    one, _ = step_once(tmp_path, objective)
    two, _ = step_once(tmp_path, objective, updates_per_batch=2, learning_rate=0.05)

    masked_by_cap = one.tally.clipped_tokens
    assert two.tally.clipped_tokens > masked_by_cap + 5


def test_a_reference_equal_to_the_policy_costs_nothing(tmp_path: Path) -> None:
    make_model(tmp_path)
    plain, expected = step_once(tmp_path, replace(OBJECTIVES["apg"]))
    objective = replace(OBJECTIVES["apg"], kl_reference=0.5)

    metrics, found = step_once(tmp_path, objective, with_reference=tmp_path)

    assert metrics.tally.kl_reference == pytest.approx(0.0, abs=1e-4)
    assert metrics.tally.targets >= plain.tally.targets
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-2, atol=2e-3)


def test_divergence_from_the_reference_is_measured_as_by_hand(tmp_path: Path) -> None:
    policy, other = tmp_path / "policy", tmp_path / "other"
    make_model(policy)
    model = make_model(other)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    model.save_pretrained(other)
    objective = replace(OBJECTIVES["apg"], kl_reference=0.1)

    metrics, _ = step_once(policy, objective, with_reference=other)

    batch = build_batch(make_trajectories(), learner_version=5, objective=objective)
    (pack,) = pack_segments(batch.segments, budget=10_000)
    with torch.no_grad():
        gap = token_logprobs(load_model(other), pack) - token_logprobs(load_model(policy), pack)
    by_hand = (gap.exp() - 1 - gap).sum().item()
    assert metrics.tally.kl_reference == pytest.approx(by_hand, rel=1e-3)
    assert by_hand > 0.1


def without_signal(*groups: str) -> list[Trajectory]:
    """The usual batch; every member of these groups earned the same."""
    return [
        replace(t, step_rewards=np.ones_like(t.step_rewards)) if t.group_id in groups else t
        for t in make_trajectories()
    ]


@pytest.mark.parametrize("key", ["kl_reference", "kl_behaviour", "entropy"])
@pytest.mark.parametrize("groups", [("g0", "g2"), ("g0", "g1", "g2")], ids=["some", "all"])
def test_a_penalty_counts_the_tokens_of_groups_without_signal_too(
    tmp_path: Path, key: str, groups: tuple[str, ...]
) -> None:
    make_model(tmp_path)
    trajectories = without_signal(*groups)
    # Without a discount to come, the returns of such a group are equal at every step.
    objective = replace(OBJECTIVES["apg"], **{key: 0.1}, discount=0.0)
    of_actions = [s.action_index[s.action_index != NOT_AN_ACTION] for t in trajectories
                  for s in t.segments]  # fmt: skip

    metrics, moved = step_once(
        tmp_path, objective, trajectories=trajectories,
        with_reference=tmp_path if key == "kl_reference" else None,
    )  # fmt: skip
    batch = build_batch(trajectories, learner_version=5, objective=objective)

    tokens = sum(map(len, of_actions))
    assert metrics.tally.targets == batch.num_action_tokens == tokens
    assert batch.num_actions == batch.summary.actions
    assert batch.summary.groups_without_signal == len(groups)
    if key != "kl_reference":  # it is the policy itself
        before = full_state_dict(load_model(tmp_path))
        name = "model.layers.0.mlp.up_proj.weight"
        assert not torch.equal(moved[name], before[name])


def test_a_kl_term_without_a_reference_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)

    with pytest.raises(ValueError, match="no reference model"):
        step_once(tmp_path, replace(OBJECTIVES["apg"], kl_reference=0.1))


def test_warnings_name_what_is_wrong_and_the_remedy(tmp_path: Path) -> None:
    make_model(tmp_path)
    metrics, _ = step_once(tmp_path, Objective())

    found = warnings_of(metrics)

    assert metrics.effective_sample_size < 0.5
    assert any("learner.max_staleness" in text and "effective sample" in text for text in found)
    assert any("k3 of tokens sampled by these very weights" in text for text in found)
    healthy = replace(metrics, tally=replace(metrics.tally, rho=metrics.tally.actions,
                      rho_squared=metrics.tally.actions, masked=0.0, fresh_k3=0.0))  # fmt: skip
    assert warnings_of(healthy) == []


def test_kinds_of_action_add_up_to_all_of_them(tmp_path: Path) -> None:
    make_model(tmp_path)
    metrics, _ = step_once(tmp_path, OBJECTIVES["apg"])
    kinds = metrics.kinds

    counted = metrics.tally.actions - metrics.tally.not_finite
    for prefix in ("staleness_", "tokens_"):
        members = [kind.actions for name, kind in kinds.items() if name.startswith(prefix)]
        assert sum(members) == counted
    assert all(0 < kind.effective_sample_size <= 1 for kind in kinds.values())


def test_an_entropy_bonus_flattens_the_policy(tmp_path: Path) -> None:
    make_model(tmp_path)
    silent = Objective(apg=Apg(kappa=0.0))

    measured, _ = step_once(tmp_path, replace(silent, entropy=1e-9), learning_rate=0.0)
    before = measured.diagnostics()["entropy"]
    _, moved = step_once(tmp_path, replace(OBJECTIVES["apg"], entropy=10.0))
    _, plain = step_once(tmp_path, OBJECTIVES["apg"])

    assert 0 < before < 4
    name = "model.norm.weight"
    assert not torch.equal(moved[name], plain[name])
