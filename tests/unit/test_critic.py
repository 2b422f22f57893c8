"""Bi-level advantages equal a slow loop, and the critic learns the returns it is shown."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import Gae, Learner, Objective
from learner.engine.critic import load_critic
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.sharding import shard
from learner.objectives.sampled import Normalisers
from learner.objectives.token_gae import clipped_value_loss, token_advantages
from learner.packs.exchange import Work
from learner.packs.packing import pack_segments, segment_of_actions
from learner.step.train_step import TrainStep
from tests.tiny_policy import make_model, make_trajectories

CONFIG = Learner(pack_tokens=64, learning_rate=1e-3, max_staleness=2, warmup_steps=1)
CRITIC = Gae(learning_rate=1e-2, value_clip=10.0)


def by_loop(
    values: list[list[float]], returns: list[float], discount: float, decay: float
) -> list[list[float]]:
    rows = []
    for own, final in zip(values, returns, strict=True):
        row = []
        for t in range(len(own)):
            total = 0.0
            for later in range(t, len(own)):
                reward = final if later + 1 == len(own) else 0.0
                after = own[later + 1] if later + 1 < len(own) else 0.0
                total += (discount * decay) ** (later - t) * (
                    reward + discount * after - own[later]
                )
            row.append(total)
        rows.append(row)
    return rows


@pytest.mark.parametrize(("discount", "decay"), [(0.99, 0.99), (1.0, 1.0), (0.9, 0.5)])
def test_token_advantages_equal_a_slow_loop(discount: float, decay: float) -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=n).tolist() for n in (3, 1, 4)]
    owner = torch.tensor([2, 2, 2, 0, 1, 1, 1, 1])
    returns = torch.tensor([0.5, -1.0, 2.0])

    flat = torch.tensor(list(chain(*values)))
    found, totals = token_advantages(flat, owner, returns, discount=discount, decay=decay)

    expected = by_loop(values, [2.0, 0.5, -1.0], discount, decay)
    torch.testing.assert_close(found, torch.tensor(list(chain(*expected))))
    torch.testing.assert_close(totals, found + flat)


def test_value_loss_is_the_worse_of_clipped_and_free() -> None:
    loss = clipped_value_loss(
        torch.tensor([1.0, 0.0]),
        torch.tensor([0.0, 0.0]),
        torch.tensor([1.0, 3.0]),
        clip=0.5,
        num_tokens=2,
    )

    assert loss.item() == pytest.approx(0.5 * (0.25 + 9.0) / 2)


def test_the_critic_learns_the_returns_it_is_shown(tmp_path: Path) -> None:
    make_model(tmp_path)
    trajectories = make_trajectories(groups=1)
    rewards = [t.step_rewards for t in trajectories]
    firsts = np.cumsum([0, *(len(own) for own in rewards)])
    segments = [
        segment_of_actions(s, name=t.trajectory_id, first_action_id=int(first))
        for t, first in zip(trajectories, firsts[:-1], strict=True)
        for s in t.segments
    ]
    packs = pack_segments(segments, budget=64)
    tokens = sum(pack.num_targets for pack in packs)
    work = Work(packs=packs, advantages=torch.ones(int(firsts[-1])), version=5,
                normalisers=Normalisers(tokens=tokens, actions=int(firsts[-1])))  # fmt: skip
    losses = []
    with training_processes() as rank:
        critic = load_critic(
            tmp_path, rank, config=CRITIC, learner=CONFIG, gamma=0.95, compute_dtype=torch.float32
        )
        before = critic.estimate([work], rewards)[0]
        for _ in range(30):
            estimates = critic.estimate([work], rewards)[0]
            losses.append(
                sum(
                    critic.learn(pack, own, num_tokens=tokens)
                    for pack, own in zip(packs, estimates, strict=True)
                )
            )
            critic.step()

    assert all(bool((own.values == 0).all()) for own in before), "the first values are 0"
    every = torch.cat([own.advantages for own in before])
    assert every.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert every.std().item() == pytest.approx(1.0, abs=1e-3)
    assert losses[-1] < 0.5 * losses[0]


def test_a_step_with_a_critic_moves_policy_and_critic(tmp_path: Path) -> None:
    make_model(tmp_path)
    objective = Objective(name="token_tis", advantage="gae")
    with training_processes() as rank:
        model = shard(load_model(tmp_path), rank, compute_dtype=torch.float32)
        critic = load_critic(
            tmp_path, rank, config=CRITIC, learner=CONFIG, gamma=0.95, compute_dtype=torch.float32
        )
        step = TrainStep(
            model, PolicyOptimizer(model, CONFIG), rank, config=CONFIG, objective=objective,
            temperature=1.0, critic=critic,
        )  # fmt: skip
        runs = [step.run(make_trajectories(), version=5) for _ in range(4)]

    losses = [run.tally.value_loss for run in runs if run is not None]
    assert losses[-1] < losses[0]
    assert all(run is not None and run.update is not None and run.update.applied for run in runs)


def test_gae_is_refused_for_objectives_by_action() -> None:
    with pytest.raises(ValueError, match="'token_tis' or 'decoupled_ppo', got 'apg'"):
        Objective(advantage="gae")
