"""Rows of the verification table in docs/objectives.md that no other file holds, by their number.

Policies are tables small enough to sum over everything that can be sampled, so that gradients are
exact numbers and not estimates.
"""

import itertools
from math import exp, fsum, inf
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Objective
from common.generation import encode_request
from common.messages import NOT_AN_ACTION, Segment, Task
from learner.advantages import group_loo
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.engine.logprobs import linear_logprobs
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions, measure_ratios
from learner.objectives.token_gae import token_advantages
from learner.packs.batch import build_batch
from learner.packs.packing import pack_segments, segment_of_actions
from learner.step.metrics import PackingReport, StepMetrics
from learner.step.tally import Tally, tally_pack

UNBOUNDED = Objective(
    weight_limits_positive=(0.0, inf), weight_limits_negative=(0.0, inf), kappa=inf, t_ref=inf
)
ONE = Normalisers(tokens=1, actions=1)


def loss_of(
    learner: Tensor,
    behaviour: Tensor,
    owner: Tensor,
    advantages: Tensor,
    objective: Objective = UNBOUNDED,
    *,
    normalisers: Normalisers = ONE,
    by_token: Tensor | None = None,
    proximal: Tensor | None = None,
) -> PolicyLoss:
    sampled = SampledActions(
        behaviour_logprobs=behaviour,
        action_ids=owner,
        versions=torch.zeros_like(owner),
        advantages=advantages,
        learner_version=0,
        max_staleness=0,
        token_advantages=by_token,
    )
    return policy_loss(
        learner, sampled, objective=objective, normalisers=normalisers, proximal_logprobs=proximal
    )


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def relative_error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


LEARNER, BEHAVIOUR = numbers(0.2, -0.1, 0.4), numbers(0.5, 0.0, -0.3)


def test_v4_the_clip_keeps_the_gradient_of_one_arm_only() -> None:
    """Arms of rewards 0, 1/2 and 1 against the expected reward of the learner."""
    advantages = numbers(0.0, 0.5, 1.0) - 0.53737107
    behaviour = BEHAVIOUR.log_softmax(0)

    result = loss_of(
        LEARNER.log_softmax(0), behaviour, torch.arange(3), advantages,
        Objective(name="decoupled_ppo"), proximal=behaviour,
    )  # fmt: skip

    assert result.verdicts.clipped_tokens.tolist() == [1, 0, 1]


SEQUENCES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
FIRST_AND_SECOND = torch.arange(4).repeat_interleave(2)
TWO_LEARNER = torch.tensor([[0.3, -0.2], [0.1, 0.6], [-0.4, 0.5]], dtype=torch.float64)
TWO_BEHAVIOUR = torch.tensor([[-0.1, 0.4], [0.5, -0.2], [0.3, 0.0]], dtype=torch.float64)
TWO_REWARDS = numbers(1.0, 0.0, 0.25, 0.75)


def two_tokens(logits: Tensor, sequences: Tensor = SEQUENCES) -> Tensor:
    """[S, 2] of two-symbol sequences; row 1 + x of the logits follows symbol x."""
    rows = logits.log_softmax(-1)
    first, second = sequences[:, 0], sequences[:, 1]
    return torch.stack([rows[0][first], rows[1 + first, second]], dim=1)


def test_v6_the_ratio_of_a_sequence_is_the_product_of_its_tokens() -> None:
    learner, behaviour = two_tokens(TWO_LEARNER), two_tokens(TWO_BEHAVIOUR)

    result = loss_of(learner.flatten(), behaviour.flatten(), FIRST_AND_SECOND, torch.ones(4))

    rho = result.verdicts.weight.double()
    expected = numbers(0.93156349, 3.09289970, 0.30519675, 1.01328889)
    torch.testing.assert_close(rho, expected, rtol=0, atol=1e-6)
    by_token = (learner - behaviour).exp().prod(1)
    torch.testing.assert_close(rho, by_token, rtol=1e-6, atol=0)
    assert (behaviour.sum(1).exp() * rho).sum().item() == pytest.approx(1.0, abs=1e-6)


def test_v7_the_geometric_mean_is_biased_less_than_single_tokens_but_biased() -> None:
    logits = TWO_LEARNER.clone().requires_grad_()
    chances = two_tokens(TWO_BEHAVIOUR).sum(1).exp()
    expected_reward = (two_tokens(logits).sum(1).exp() * TWO_REWARDS).sum()
    (exact,) = torch.autograd.grad(expected_reward, logits)

    result = loss_of(
        two_tokens(logits).flatten(), two_tokens(TWO_BEHAVIOUR).flatten(), FIRST_AND_SECOND,
        chances * TWO_REWARDS, Objective(name="gspo", gspo_clip=(1.0, inf)),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(-result.loss, logits)

    # The mean over the two tokens of an action halves every sequence alike.
    assert relative_error(2 * gradient, exact) == pytest.approx(0.1217, abs=1e-4)


MDP = numbers(0.1, -0.3, 0.2, 0.4, -0.5, 0.1)
MDP_BEHAVIOUR = numbers(-0.4, 0.2, 0.6, 0.0, 0.1, -0.2)
FIRST_REWARD, SECOND_REWARD = numbers(0.1, 0.0), numbers(0.0, 1.0, 0.3, 0.0).view(2, 2)
DISCOUNT = 0.95


def episode(logits: Tensor, a: int, b: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of both steps of an episode."""
    return logits[:2].log_softmax(0)[a], logits[2 + 2 * a : 4 + 2 * a].log_softmax(0)[b]


def actions_of_episode(row: str, a: int, b: int) -> list[list[float]]:
    """Tokens of both steps as actions, each a list of the advantages of its tokens.

    An action of both steps is weighted by the product of their ratios, one of the first step by
    the ratio of that.
    """
    now, later = float(FIRST_REWARD[a]), DISCOUNT * float(SECOND_REWARD[a, b])
    return {
        "trajectory": [[now + later, later]],
        "per decision": [[now], [later, later]],
        "prefix": [[now + later], [0.0, later]],
    }[row]


@pytest.mark.parametrize(
    ("row", "error"), [("trajectory", 0.0), ("per decision", 0.0), ("prefix", 0.31376)]
)
def test_v9_weights_of_longer_prefixes_are_exact_or_nearly_so(row: str, error: float) -> None:
    """Per action and uncorrected: test_objective_numbers.py."""
    logits = MDP.clone().requires_grad_()
    learner, behaviour, owner, by_token, signs = [], [], [], [], []
    for a, b in itertools.product(range(2), repeat=2):
        chance = (episode(MDP_BEHAVIOUR, a, b)[0] + episode(MDP_BEHAVIOUR, a, b)[1]).exp()
        for advantages in actions_of_episode(row, a, b):
            for step, advantage in enumerate(advantages):
                learner.append(episode(logits, a, b)[step])
                behaviour.append(episode(MDP_BEHAVIOUR, a, b)[step])
                owner.append(len(signs))
                by_token.append(float(chance) * advantage)
            signs.append(1.0)
    chance = logits[:2].softmax(0)[:, None] * logits[2:].view(2, 2).softmax(1)
    expected = (chance * (FIRST_REWARD[:, None] + DISCOUNT * SECOND_REWARD)).sum()
    (exact,) = torch.autograd.grad(expected, logits)

    result = loss_of(
        torch.stack(learner), torch.stack(behaviour), torch.tensor(owner), torch.tensor(signs),
        by_token=numbers(*by_token),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(-result.loss, logits)

    assert relative_error(gradient, exact) == pytest.approx(error, abs=1e-4 if error else 1e-6)


def tally_of(learner: Tensor, behaviour: list[float], *, owner: list[int] | None = None) -> Tally:
    """The tally of one action, or of those in ``owner``, as if it filled a pack."""
    owner = [0] * len(behaviour) if owner is None else owner
    segment = Segment(
        token_ids=np.arange(len(owner) + 1, dtype=np.int32),
        action_index=np.array([NOT_AN_ACTION, *owner], dtype=np.int32),
        behaviour_logprobs=np.array([0.0, *behaviour], dtype=np.float32),
        versions=np.array([NOT_AN_ACTION, *[0] * len(owner)], dtype=np.int32),
    )
    (pack,) = pack_segments(
        [segment_of_actions(segment, name="x", first_action_id=0)], budget=len(segment.token_ids)
    )
    result = loss_of(
        learner.float(), pack.behaviour_logprobs, pack.action_ids, torch.ones(1 + max(owner))
    )
    return tally_pack(pack, learner.float(), result.loss, result.verdicts, version=0)


def metrics_of(tally: Tally) -> StepMetrics:
    batch = build_batch([], learner_version=0, objective=UNBOUNDED).summary
    return StepMetrics(
        version=0,
        batch=batch,
        tally=tally,
        updates=(),
        seconds=1.0,
        packing=PackingReport(budget=8),
    )


def test_v10_squares_of_the_reference_ratios() -> None:
    """The other estimates of this action: test_train_step.py."""
    learner = torch.tensor([-0.1, -1.2, -0.05, -2.3, -0.7])

    tally = tally_of(learner, [-0.12, -1.0, -0.05, -2.5, -0.9])

    assert tally.d_squared / tally.targets == pytest.approx(0.02408, abs=1e-6)
    assert metrics_of(tally).diagnostics()["k2"] == pytest.approx(0.01204, abs=1e-6)
    assert metrics_of(tally).diagnostics()["k1"] == pytest.approx(-0.044, abs=1e-6)


def finite_differences(function: Any, place: Tensor, step: float) -> Tensor:
    slopes = torch.zeros_like(place)
    for i in range(place.numel()):
        moved = torch.zeros_like(place).view(-1)
        moved[i] = step
        moved = moved.view(place.shape)
        slopes.view(-1)[i] = (function(place + moved) - function(place - moved)) / (2 * step)
    return slopes


V13 = SEQUENCES[1:]
V13_ADVANTAGES = numbers(1.0, -1.0, 0.5)


def test_v13_the_gradient_is_that_of_the_loss_with_frozen_weights() -> None:
    logits = TWO_LEARNER.clone().requires_grad_()
    owner = torch.arange(3).repeat_interleave(2)
    result = loss_of(
        two_tokens(logits, V13).flatten(), two_tokens(TWO_BEHAVIOUR, V13).flatten(), owner,
        V13_ADVANTAGES, Objective(kappa=inf), normalisers=Normalisers(tokens=6, actions=3),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(result.loss, logits)
    weights = result.verdicts.weight.double() * V13_ADVANTAGES / 6

    found = finite_differences(
        lambda z: -(weights * two_tokens(z, V13).sum(1)).sum(), TWO_LEARNER, 1e-5
    )

    torch.testing.assert_close(found, gradient, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(name="gspo", gspo_clip=(0.2, 0.6)),
        Objective(name="decoupled_ppo", ppo_clip=0.6, behaviour_cap=inf),
    ],
    ids=["gspo", "decoupled_ppo"],
)
def test_v13_the_gradient_of_a_surrogate_is_that_of_its_value(objective: Objective) -> None:
    """Through the ratios, which are clipped for some actions and not for others."""
    owner = torch.arange(3).repeat_interleave(2)
    proximal = two_tokens(TWO_BEHAVIOUR, V13).flatten()

    def loss(logits: Tensor) -> PolicyLoss:
        return loss_of(
            two_tokens(logits, V13).flatten(), proximal, owner, V13_ADVANTAGES, objective,
            normalisers=Normalisers(tokens=6, actions=3), proximal=proximal,
        )  # fmt: skip

    logits = TWO_LEARNER.clone().requires_grad_()
    result = loss(logits)
    (gradient,) = torch.autograd.grad(result.loss, logits)

    found = finite_differences(lambda z: loss(z).loss.item(), TWO_LEARNER, 1e-2)

    assert 0 < int(result.verdicts.clipped_tokens.sum()) < 6
    torch.testing.assert_close(found, gradient, rtol=1e-3, atol=1e-4)


B4_LEARNER = [[-0.5, -1.0], [-0.2, -0.3, -0.4], [-2.0]]
B4_BEHAVIOUR = [[-0.6, -0.9], [-0.2, -0.5, -0.1], [-1.5]]
B4_ADVANTAGES = torch.tensor([1.0, -0.5, 2.0])
B4_SLOPES = [-0.16666667, 0.07540312, -0.20217689]
B4 = Objective(kappa=0.3)


def b4_pack(
    members: list[int], *, normalisers: Normalisers, objective: Objective = B4
) -> tuple[float, dict[int, list[float]]]:
    """Loss and slopes of some of the three actions, as one pack."""
    learner = torch.tensor([x for i in members for x in B4_LEARNER[i]], requires_grad=True)
    owner = torch.tensor([i for i in members for _ in B4_LEARNER[i]])
    behaviour = torch.tensor([x for i in members for x in B4_BEHAVIOUR[i]])
    result = loss_of(learner, behaviour, owner, B4_ADVANTAGES, objective, normalisers=normalisers)
    (gradient,) = torch.autograd.grad(result.loss, learner)
    return result.loss.item(), {i: gradient[owner == i].tolist() for i in members}


def divisions() -> list[list[list[int]]]:
    """Every way to divide three actions into packs, in every order within and of packs."""
    found = []
    for order in itertools.permutations(range(3)):
        for cuts in itertools.product((False, True), repeat=2):
            packs = [[order[0]]]
            for action, cut in zip(order[1:], cuts, strict=True):
                packs = [*packs, [action]] if cut else [*packs[:-1], [*packs[-1], action]]
            found.append(packs)
    return found


@pytest.mark.parametrize(("norm", "loss"), [("tokens", 0.58649097), ("actions", 1.01346568)])
def test_v14_every_division_into_packs_has_the_same_loss_and_slopes(norm: Any, loss: float) -> None:
    """Whole models, padding, and ranks: tests/distributed/test_objective_invariance.py."""
    objective = Objective(kappa=0.3, loss_norm=norm)
    everything = Normalisers(tokens=6, actions=3)
    lengths = [2, 3, 1]

    for packs in divisions():
        parts = [b4_pack(pack, normalisers=everything, objective=objective) for pack in packs]

        assert sum(part for part, _ in parts) == pytest.approx(loss, abs=1e-6)
        for action, slopes in (item for _, own in parts for item in own.items()):
            scale = 1.0 if norm == "tokens" else 6 / (3 * lengths[action])
            expected = [scale * B4_SLOPES[action]] * lengths[action]
            assert slopes == pytest.approx(expected, abs=1e-7)


def test_v14_means_of_single_packs_are_something_else() -> None:
    """The mean of the packs' means, and their mean by number of actions."""
    first, _ = b4_pack([0, 1], normalisers=Normalisers(tokens=5, actions=2))
    second, _ = b4_pack([2], normalisers=Normalisers(tokens=1, actions=1))

    assert (first + second) / 2 == pytest.approx(1.3223, abs=1e-4)
    assert (2 * first + second) / 3 == pytest.approx(0.9544, abs=1e-4)


def test_v17_effective_sample_size_and_divergence_of_the_whole_population() -> None:
    """Each arm tallied once and counted with its chance under the behaviour policy."""
    chances, learner = BEHAVIOUR.softmax(0), LEARNER.log_softmax(0)
    sums: dict[str, float] = {"actions": 0.0, "rho": 0.0, "rho_squared": 0.0, "k3": 0.0}
    for arm in range(3):
        own = tally_of(learner[arm : arm + 1], [float(BEHAVIOUR.log_softmax(0)[arm])])
        for name in sums:
            sums[name] += float(chances[arm]) * getattr(own, name)

    metrics = metrics_of(Tally(targets=1.0, **sums))

    assert metrics.effective_sample_size == pytest.approx(0.81688129, abs=1e-6)
    found = metrics.diagnostics()
    assert found["rho_mean"] == pytest.approx(1.0, abs=1e-6)
    assert found["chi2"] == pytest.approx(0.22416808, abs=1e-6)
    assert found["k3"] == pytest.approx(0.08768004, abs=1e-6)


def test_v17_masks_leave_the_normaliser_as_it_is() -> None:
    """Two actions of which one is outside the trust region: the other counts one half."""
    learner = torch.tensor([-1.0, -1.0], requires_grad=True)

    result = loss_of(
        learner, torch.tensor([-1.0, -2.0]), torch.arange(2), torch.ones(2), Objective(),
        normalisers=Normalisers(tokens=2, actions=2),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(result.loss, learner)

    assert result.verdicts.masked.tolist() == [False, True]
    assert gradient.tolist() == [-0.5, 0.0]


ARM_REWARDS = numbers(1.0, 0.0, 0.5)


def groups_of_arms(size: int) -> tuple[list[tuple[int, ...]], Tensor]:
    """All groups of ``size`` arms as one batch, and their advantages without the batch's scale."""
    groups = list(itertools.product(range(3), repeat=size))
    returns = [np.array([float(ARM_REWARDS[arm])]) for group in groups for arm in group]
    names = [str(number) for number in range(len(groups)) for _ in range(size)]
    advantages = torch.from_numpy(np.concatenate(group_loo(returns, names, clip=inf)))
    differences = [
        float(ARM_REWARDS[arm])
        - fsum(float(ARM_REWARDS[other]) for j, other in enumerate(group) if j != i) / (size - 1)
        for group in groups
        for i, arm in enumerate(group)
        if size > 1
    ]
    spread = float(np.std(differences)) + 1e-6 if differences else 1.0
    return groups, advantages * spread


def gradient_of_groups(size: int, sampler: Tensor) -> Tensor:
    """Expected ascent direction over all groups that ``sampler`` can draw, exactly corrected."""
    groups, advantages = groups_of_arms(size)
    chances = torch.tensor(
        [float(sampler.softmax(0)[list(group)].prod()) for group in groups for _ in group]
    ).double()
    arms = torch.tensor([arm for group in groups for arm in group])
    logits = LEARNER.clone().requires_grad_()
    result = loss_of(
        logits.log_softmax(0)[arms], sampler.log_softmax(0)[arms], torch.arange(len(arms)),
        advantages * chances / size,
    )  # fmt: skip
    return torch.autograd.grad(-result.loss, logits)[0]


@pytest.mark.parametrize("sampler", [LEARNER, BEHAVIOUR], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_v20_leave_one_out_keeps_the_whole_gradient_in_groups_of_any_size(
    size: int, sampler: Tensor
) -> None:
    """The own mean instead would keep (m - 1) / m of it: test_advantages.py."""
    logits = LEARNER.clone().requires_grad_()
    (exact,) = torch.autograd.grad((logits.softmax(0) * ARM_REWARDS).sum(), logits)

    found = gradient_of_groups(size, sampler)

    kept = 0.0 if size == 1 else 1.0
    torch.testing.assert_close(found, kept * exact, rtol=1e-5, atol=1e-6)


def four_words(temperature: float) -> Tensor:
    """Log-probabilities of four words with logits 2, 1, 0, -1, by the learner's own scoring."""
    hidden, weight = torch.ones(4, 1), torch.tensor([[2.0], [1.0], [0.0], [-1.0]])
    return linear_logprobs(hidden, weight, torch.arange(4), temperature=temperature).logprobs


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [-0.4402, -1.4402, -2.4402, -3.4402]),
        (0.7, [-0.2707, -1.6992, -3.1278, -4.5564]),
    ],
)
def test_v21_scores_are_those_of_the_sampling_temperature(
    temperature: float, expected: list[float]
) -> None:
    assert four_words(temperature).tolist() == pytest.approx(expected, abs=1e-4)


def test_v21_a_forgotten_temperature_or_filter_shows_in_the_ratios() -> None:
    forgotten = (four_words(1.0) - four_words(0.7)).exp()
    full = four_words(1.0).exp()
    filtered = torch.where(full.cumsum(0) - full < 0.8, full, 0.0)
    filtered = filtered / filtered.sum()

    assert forgotten[[0, 3]].tolist() == pytest.approx([0.84, 3.05], abs=0.01)
    assert filtered.tolist() == pytest.approx([0.731, 0.269, 0.0, 0.0], abs=1e-3)
    assert (full / filtered)[:2].tolist() == pytest.approx([0.881, 0.881], abs=1e-3)
    assert (full / filtered).log()[0].item() == pytest.approx(-0.127, abs=1e-3)


def test_v21_requests_carry_no_filter_that_would_change_the_distribution() -> None:
    body = encode_request([1], max_tokens=4, temperature=0.7).decode()

    assert '"temperature":0.7' in body
    for name in ("top_p", "top_k", "min_p", "penalty", "logit_bias", "min_tokens"):
        assert name not in body


def sum_error(kind: torch.dtype, seed: int) -> float:
    """Of S over 4096 tokens, log-probabilities being kept as ``kind``."""
    generator = torch.Generator().manual_seed(seed)
    behaviour = -10 * torch.rand(4096, generator=generator).double()
    learner = behaviour + torch.randn(4096, generator=generator).double()
    sampled = SampledActions(
        behaviour_logprobs=behaviour.to(kind),
        action_ids=torch.zeros(4096, dtype=torch.int64),
        versions=torch.zeros(4096, dtype=torch.int64),
        advantages=torch.ones(1),
        learner_version=0,
        max_staleness=0,
    )
    found = measure_ratios(learner.to(kind), sampled, token_veto=1e9).log_rho.item()
    return abs(found - fsum((learner - behaviour).tolist()))


def test_v23_a_long_action_sums_exactly() -> None:
    single = [sum_error(torch.float32, seed) for seed in range(4)]
    half = [sum_error(torch.bfloat16, seed) for seed in range(4)]

    assert max(single) < 1e-3
    assert max(half) > 0.1, "half precision would be too coarse however it is summed"


def test_v23_token_advantages_of_a_long_action_equal_the_recurrence() -> None:
    rng = np.random.default_rng(0)
    lengths = [4096, 1, 700, 2]
    owner = np.repeat([2, 0, 3, 1], lengths)
    values = rng.normal(size=len(owner))
    returns = rng.normal(size=4)
    expected, following = np.zeros(len(owner)), 0.0
    for t in reversed(range(len(owner))):
        last = t + 1 == len(owner) or owner[t + 1] != owner[t]
        reward, after = (returns[owner[t]], 0.0) if last else (0.0, values[t + 1])
        following = reward + 0.99 * after - values[t] + 0.99 * 0.99 * (0.0 if last else following)
        expected[t] = following

    found, _ = token_advantages(
        torch.tensor(values, dtype=torch.float32), torch.tensor(owner),
        torch.tensor(returns, dtype=torch.float32), discount=0.99, decay=0.99,
    )  # fmt: skip

    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_v24_admission_stops_at_the_reference_count() -> None:
    """Batches of 512 trajectories, eight versions behind at most, version 100."""
    tasks = [Task(task_id="t", question="?", answers=("a",))]
    state = Coordinator(
        TaskOrder(tasks, seed=0), groups_per_batch=128, group_size=4, max_staleness=8,
        total_batches=1000, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    state.version = 100

    assert state.batch == 512
    assert state.capacity == 55_808
    state.counters.trained = 55_808 - 512
    assert state.capacity == 512
    state.version = 99
    assert state.capacity == 0


def test_e_of_rho_drops_by_known_amounts_when_truncated() -> None:
    """Weights of log-normal ratios: sd 0.5 keeps 0.803 of the mean below 1, 0.974 below 2."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, generator=generator)

    for spread, below_one, below_two in ((0.5, 0.803, 0.974), (1.0, 0.617, 0.809)):
        log_rho = spread * normal - spread**2 / 2
        result = loss_of(
            log_rho, torch.zeros_like(log_rho), torch.arange(len(log_rho)),
            torch.ones_like(log_rho),
            Objective(weight_limits_positive=(0.0, 2.0), kappa=inf, token_veto=exp(100)),
        )  # fmt: skip
        weights = result.verdicts.weight

        assert weights.mean().item() == pytest.approx(below_two, abs=4e-3)
        assert weights.clamp(max=1.0).mean().item() == pytest.approx(below_one, abs=4e-3)
