"""Every objective against exact numbers, by enumeration of small tabular policies."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Apg, DecoupledPpo, Gae, Gspo, Objective, TokenTis, Topr
from learner.advantages import generalised_advantages, reinforce_pp
from learner.objectives.penalties import entropy_bonus, kl_estimate, kl_penalty
from learner.objectives.policy_loss import PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions

inf = math.inf
LEARNER = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64)
BEHAVIOUR = torch.tensor([0.5, 0.0, -0.3], dtype=torch.float64)
FREE = {"weight_limits_positive": (0.0, inf), "weight_limits_negative": (0.0, inf)}
NO_REGION = {"kappa": inf, "t_ref": inf}
UNCORRECTED = Objective(
    apg=Apg(weight_limits_positive=(1.0, 1.0), weight_limits_negative=(1.0, 1.0), **NO_REGION)
)


def loss_of(
    learner: Tensor,
    behaviour: Tensor,
    advantages: Tensor,
    objective: Objective,
    *,
    owner: Tensor | None = None,
    tokens: int = 1,
    actions: int = 1,
    proximal: Tensor | None = None,
) -> PolicyLoss:
    owner = torch.arange(len(learner)) if owner is None else owner
    sampled = SampledActions(
        behaviour_logprobs=behaviour,
        action_ids=owner,
        versions=torch.zeros_like(owner),
        advantages=advantages,
        learner_version=0,
        max_staleness=0,
    )
    counts = Normalisers(tokens=tokens, actions=actions)
    return policy_loss(
        learner, sampled, objective=objective, normalisers=counts, proximal_logprobs=proximal
    )


def bandit_gradient(objective: Objective, advantages: list[float]) -> list[float]:
    """Ascent direction on the logits: all three arms, each with its chance under the behaviour."""
    logits = LEARNER.clone().requires_grad_()
    chances = BEHAVIOUR.softmax(0)
    result = loss_of(
        logits.log_softmax(0),
        BEHAVIOUR.log_softmax(0),
        torch.tensor(advantages, dtype=torch.float64) * chances,
        objective,
    )
    (gradient,) = torch.autograd.grad(-result.loss, logits)
    return gradient.tolist()


REWARDS = [1.0, 0.0, 0.5]
EXACT = [0.15402366, -0.13598524, -0.01803842]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective(apg=Apg(**FREE, **NO_REGION)), EXACT),
        (UNCORRECTED, [0.28531725, -0.14897653, -0.13634071]),
        (Objective(name="token_tis", token_tis=TokenTis(cap=inf)), EXACT),
        (Objective(name="token_tis", token_tis=TokenTis(cap=2.0)), EXACT),
    ],
    ids=["exact weights", "uncorrected", "token weights", "cap above every ratio"],
)
def test_bandit_gradient_is_the_reference_one(objective: Objective, expected: list[float]) -> None:
    assert bandit_gradient(objective, REWARDS) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(("cap", "bias"), [(1.0, 0.33934), (1.5, 0.14796), (2.0, 0.0)])
def test_truncation_has_the_reference_bias(cap: float, bias: float) -> None:
    objective = Objective(apg=Apg(weight_limits_positive=(0.0, cap), **NO_REGION))

    error = np.subtract(bandit_gradient(objective, REWARDS), EXACT)

    assert np.linalg.norm(error) / np.linalg.norm(EXACT) == pytest.approx(bias, abs=1e-4)


def test_a_baseline_changes_the_uncorrected_gradient_only() -> None:
    baseline = 0.54374788
    centred = [reward - baseline for reward in REWARDS]

    exact = bandit_gradient(Objective(apg=Apg(**FREE, **NO_REGION)), centred)
    naive = bandit_gradient(UNCORRECTED, centred)

    assert exact == pytest.approx(EXACT, abs=1e-6)
    assert naive == pytest.approx([0.20439125, -0.17341069, -0.03098056], abs=1e-6)


QUADRANTS = [reward - 0.53737107 for reward in (0.0, 0.5, 1.0)]


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective(apg=Apg(**NO_REGION)), [-0.18140817, -0.00934609, 0.19075425]),
        (
            Objective(
                apg=Apg(
                    weight_limits_positive=(0.0, 1.5),
                    weight_limits_negative=(0.0, 1.5),
                    **NO_REGION,
                )
            ),
            [-0.16821337, 0.00042886, 0.16778452],
        ),
        (Objective(name="topr", topr=Topr(kappa=inf)), [-0.15114641, 0.01307237, 0.13807403]),
        (
            Objective(name="gspo", gspo=Gspo(clip=(0.2, 0.2))),
            [0.00315509, -0.00700873, 0.00385364],
        ),
    ],
    ids=["apg", "one limit", "topr", "clip of 0.2 on single tokens"],
)
def test_quadrants_have_the_reference_gradient(objective: Objective, expected: list[float]) -> None:
    assert bandit_gradient(objective, QUADRANTS) == pytest.approx(expected, abs=1e-6)


SEQUENCES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
TWO_LEARNER = torch.tensor([[0.3, -0.2], [0.1, 0.6], [-0.4, 0.5]], dtype=torch.float64)
TWO_BEHAVIOUR = torch.tensor([[-0.1, 0.4], [0.5, -0.2], [0.3, 0.0]], dtype=torch.float64)
LATER = torch.tensor([[-0.1, 0.4], [0.2, 0.3], [0.0, 0.9]], dtype=torch.float64)
"""The first token from the behaviour weights, the second from newer ones."""
TWO_REWARDS = torch.tensor([1.0, 0.0, 0.25, 0.75], dtype=torch.float64)
TWO_EXACT = [-0.05356536, 0.05356536, 0.14628025, -0.14628025, -0.03879236, 0.03879236]


def logprobs_of(logits: Tensor) -> Tensor:
    """[4, 2] of all two-symbol sequences; row 1 + x of the logits follows symbol x."""
    rows = logits.log_softmax(-1)
    first, second = SEQUENCES[:, 0], SEQUENCES[:, 1]
    return torch.stack([rows[0][first], rows[1 + first, second]], dim=1)


def sequence_error(objective: Objective, sampler: Tensor, recorded: Tensor) -> float:
    """Relative error of the ascent direction, sampled by one policy and recorded as another."""
    logits = TWO_LEARNER.clone().requires_grad_()
    chances = logprobs_of(sampler).sum(1).exp()
    result = loss_of(
        logprobs_of(logits).flatten(),
        logprobs_of(recorded).flatten(),
        chances * TWO_REWARDS,
        objective,
        owner=torch.arange(4).repeat_interleave(2),
    )
    (gradient,) = torch.autograd.grad(-result.loss, logits)
    exact = np.array(TWO_EXACT)
    return float(np.linalg.norm(gradient.flatten().numpy() - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize(
    ("objective", "error"),
    [
        (Objective(apg=Apg(**FREE, **NO_REGION)), 0.0),
        (Objective(name="token_tis", token_tis=TokenTis(cap=inf)), 0.7453),
        (UNCORRECTED, 0.3448),
    ],
    ids=["product of ratios", "token ratios", "uncorrected"],
)
def test_only_the_product_of_ratios_is_exact_for_sequences(
    objective: Objective, error: float
) -> None:
    found = sequence_error(objective, TWO_BEHAVIOUR, TWO_BEHAVIOUR)

    assert found == pytest.approx(error, abs=1e-4)


def test_an_action_of_two_versions_is_exact_by_its_recorded_logprobs() -> None:
    exact = Objective(apg=Apg(**FREE, **NO_REGION))

    assert sequence_error(exact, LATER, LATER) == pytest.approx(0.0, abs=1e-6)
    assert sequence_error(exact, LATER, TWO_BEHAVIOUR) == pytest.approx(0.7477, abs=1e-3)


FIRST = torch.tensor([0.1, -0.3], dtype=torch.float64)
SECOND = torch.tensor([[0.2, 0.4], [-0.5, 0.1]], dtype=torch.float64)
FIRST_BEHAVIOUR = torch.tensor([-0.4, 0.2], dtype=torch.float64)
SECOND_BEHAVIOUR = torch.tensor([[0.6, 0.0], [0.1, -0.2]], dtype=torch.float64)
FIRST_REWARD = torch.tensor([0.1, 0.0], dtype=torch.float64)
SECOND_REWARD = torch.tensor([[0.0, 1.0], [0.3, 0.0]], dtype=torch.float64)
DISCOUNT = 0.95


def two_step_gradient(objective: Objective) -> Tensor:
    """Ascent direction over both steps of all four episodes; an action a step, one token each."""
    logits = torch.cat([FIRST, SECOND.flatten()]).requires_grad_()
    learner, behaviour, advantages = [], [], []
    for a in range(2):
        for b in range(2):
            own = logits[:2].log_softmax(0)[a], logits[2 + 2 * a : 4 + 2 * a].log_softmax(0)[b]
            other = FIRST_BEHAVIOUR.log_softmax(0)[a], SECOND_BEHAVIOUR[a].log_softmax(0)[b]
            chance = (other[0] + other[1]).exp()
            later = DISCOUNT * SECOND_REWARD[a, b]
            learner += own
            behaviour += other
            advantages += [chance * (FIRST_REWARD[a] + later), chance * later]
    result = loss_of(
        torch.stack(learner), torch.stack(behaviour), torch.stack(advantages), objective
    )
    (gradient,) = torch.autograd.grad(-result.loss, logits)
    return gradient


@pytest.mark.parametrize(
    ("objective", "error"),
    [(Objective(apg=Apg(**FREE, **NO_REGION)), 0.44347), (UNCORRECTED, 0.83682)],
    ids=["per action", "uncorrected"],
)
def test_over_two_steps_weights_per_action_halve_the_error(
    objective: Objective, error: float
) -> None:
    logits = torch.cat([FIRST, SECOND.flatten()]).requires_grad_()
    chance = logits[:2].softmax(0)[:, None] * logits[2:].view(2, 2).softmax(1)
    expected = (chance * (FIRST_REWARD[:, None] + DISCOUNT * SECOND_REWARD)).sum()
    (exact,) = torch.autograd.grad(expected, logits)

    found = two_step_gradient(objective)

    assert exact[:5:2].tolist() == pytest.approx([0.12526098, -0.14077586, 0.02616697], abs=1e-7)
    assert (found - exact).norm().item() / exact.norm().item() == pytest.approx(error, abs=1e-4)


ACTION = torch.tensor([-0.1, -1.2, -0.05, -2.3, -0.7], dtype=torch.float64)
RECORDED = torch.tensor([-0.12, -1.0, -0.05, -2.5, -0.9], dtype=torch.float64)


def one_action(advantage: float, objective: Objective) -> tuple[float, list[float], PolicyLoss]:
    """Objective's value, its slope on each token, and the result, for one action of five tokens."""
    learner = ACTION.clone().requires_grad_()
    result = loss_of(
        learner,
        RECORDED,
        torch.tensor([advantage], dtype=torch.float64),
        objective,
        owner=torch.zeros(5, dtype=torch.int64),
        tokens=5,
    )
    (gradient,) = torch.autograd.grad(-result.loss, learner)
    return -result.loss.item(), gradient.tolist(), result


def test_ratios_of_an_action_have_the_reference_values() -> None:
    _, _, result = one_action(1.0, Objective(apg=Apg(**FREE, **NO_REGION)))
    mean = Objective(name="gspo", gspo=Gspo(clip=(1.0, 1.0)))

    assert result.verdicts.ratios.log_rho.item() == pytest.approx(0.22, abs=1e-6)
    assert result.verdicts.weight.item() == pytest.approx(1.24607673, abs=1e-6)
    assert one_action(1.0, mean)[2].verdicts.weight.item() == pytest.approx(1.04498235, abs=1e-6)


@pytest.mark.parametrize(
    ("advantage", "clip", "value", "slope"),
    [
        (1.5, (3e-4, 4e-4), 1.5006, 0.0),
        (-1.5, (3e-4, 4e-4), -1.56747353, -1.56747353 / 5),
        (1.5, (0.2, 0.2), 1.56747353, 1.56747353 / 5),
    ],
)
def test_gspo_has_the_reference_value_and_gradient(
    advantage: float, clip: tuple[float, float], value: float, slope: float
) -> None:
    found, gradient, _ = one_action(advantage, Objective(name="gspo", gspo=Gspo(clip=clip)))

    assert found == pytest.approx(value, abs=1e-6)
    assert gradient == pytest.approx([slope] * 5, abs=1e-6)


@pytest.mark.parametrize(("advantage", "value"), [(1.5, 1.57167963), (-1.5, -1.58452128)])
def test_decoupled_ppo_around_the_behaviour_is_ppo(advantage: float, value: float) -> None:
    learner = ACTION.clone().requires_grad_()
    result = loss_of(
        learner,
        RECORDED,
        torch.tensor([advantage], dtype=torch.float64),
        Objective(name="decoupled_ppo"),
        owner=torch.zeros(5, dtype=torch.int64),
        tokens=5,
        proximal=RECORDED,
    )
    (gradient,) = torch.autograd.grad(-result.loss, learner)
    ratio = (ACTION - RECORDED).exp()
    clipped = ratio > 1.2 if advantage > 0 else ratio < 0.8
    expected = torch.where(clipped, 0.0, ratio * advantage / 5)

    assert -result.loss.item() == pytest.approx(value, abs=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_decoupled_ppo_with_one_update_is_a_masked_token_weight() -> None:
    learner = torch.tensor([-0.1, -1.0], requires_grad=True)
    behaviour = torch.tensor([-0.5, -3.0])
    result = loss_of(
        learner,
        behaviour,
        torch.tensor([1.0]),
        Objective(name="decoupled_ppo"),
        owner=torch.zeros(2, dtype=torch.int64),
        tokens=2,
    )
    (gradient,) = torch.autograd.grad(-result.loss, learner)

    assert gradient.tolist() == pytest.approx([math.exp(0.4) / 2, 0.0])
    assert result.verdicts.clipped_tokens.tolist() == [1]


def test_token_band_takes_the_gradient_of_outlying_tokens() -> None:
    learner = torch.tensor([-0.1, -1.0, -4.0], requires_grad=True)
    behaviour = torch.tensor([-0.1, -3.0, -2.0])
    objective = Objective(name="token_tis", token_tis=TokenTis(cap=4.0, band=(0.5, 5.0)))

    result = loss_of(
        learner,
        behaviour,
        torch.tensor([2.0]),
        objective,
        owner=torch.zeros(3, dtype=torch.int64),
        tokens=3,
    )
    (gradient,) = torch.autograd.grad(-result.loss, learner)

    assert gradient.tolist() == pytest.approx([2 / 3, 0.0, 0.0])
    assert result.verdicts.clipped_tokens.tolist() == [2]


NAMES = ["apg", "topr", "token_tis", "gspo", "decoupled_ppo"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["tokens", "actions"])
def test_on_the_behaviour_policy_every_objective_is_reinforce(name: str, norm: str) -> None:
    learner = torch.tensor([-0.5, -1.0, -0.2, -0.3, -0.4, -2.0], requires_grad=True)
    owner = torch.tensor([0, 0, 1, 1, 1, 2])
    advantages = torch.tensor([1.0, -0.5, 2.0])
    objective = Objective(name=name, loss_norm=norm)  # type: ignore[arg-type]

    result = loss_of(
        learner, learner.detach(), advantages, objective, owner=owner, tokens=6, actions=3
    )
    (gradient,) = torch.autograd.grad(result.loss, learner)

    by_actions = norm == "actions" or name == "gspo"
    scale = 1 / (3 * torch.tensor([2.0, 2, 3, 3, 3, 1])) if by_actions else torch.tensor(1 / 6)
    torch.testing.assert_close(gradient, -advantages[owner] * scale)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_linear_in_the_advantage_and_zero_where_masked(name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    behaviour = -torch.rand(20, generator=generator)
    learner = behaviour + 0.3 * torch.randn(20, generator=generator)
    owner = torch.arange(20) // 4
    advantages = torch.randn(5, generator=generator)

    def gradient(factor: float) -> tuple[Tensor, PolicyLoss]:
        own = learner.clone().requires_grad_()
        result = loss_of(
            own, behaviour, factor * advantages, Objective(name=name), owner=owner, tokens=20  # type: ignore[arg-type]
        )  # fmt: skip
        return torch.autograd.grad(result.loss, own)[0], result

    once, result = gradient(1.0)
    torch.testing.assert_close(gradient(3.0)[0], 3.0 * once)
    assert bool((once[result.verdicts.masked[owner]] == 0).all())
    assert bool((result.token_weights[result.verdicts.masked[owner]] == 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_a_masked_action_changes_nothing_but_the_normaliser(name: str) -> None:
    behaviour = torch.tensor([-0.5, -1.0, -0.2])
    learner = torch.tensor([-0.45, -1.05, -0.21])
    objective = Objective(name=name)  # type: ignore[arg-type]
    owner, advantages = torch.tensor([0, 0, 1]), torch.tensor([1.0, -1.0])
    alone = loss_of(learner, behaviour, advantages, objective, owner=owner, tokens=3, actions=2)

    joined = loss_of(
        torch.cat([learner, torch.tensor([-0.1])]),
        torch.cat([behaviour, torch.tensor([math.nan])]),
        torch.cat([advantages, torch.tensor([5.0])]),
        objective,
        owner=torch.cat([owner, torch.tensor([2])]),
        tokens=3,
        actions=2,
    )

    torch.testing.assert_close(alone.loss, joined.loss)


P = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64).softmax(0)
Q = torch.tensor([0.0, 0.3, -0.2], dtype=torch.float64).softmax(0)


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        ("k1", 0.08222465, [0.0, 0.0, 0.0]),
        ("k2", 0.08127189, [-0.00502, -0.15377, 0.15880]),
        ("k3", 0.08222465, [0.02199, -0.17592, 0.15394]),
    ],
)
def test_kl_estimators_have_the_reference_mean_and_gradient(
    estimator: str, value: float, slope: list[float]
) -> None:
    logits = LEARNER.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    estimate = (P * kl_estimate(logprobs, Q.log(), estimator)).sum()  # type: ignore[arg-type]
    (gradient,) = torch.autograd.grad(estimate, logits)

    assert estimate.item() == pytest.approx(value, abs=1e-7)
    assert gradient.tolist() == pytest.approx(slope, abs=1e-5)


def test_a_weighted_kl_penalty_is_exact_off_policy() -> None:
    logits = LEARNER.clone().requires_grad_()
    chances = BEHAVIOUR.softmax(0)
    logprobs = logits.log_softmax(0)
    weights = chances * (P / chances)

    penalty = kl_penalty(logprobs, Q.log(), weights, estimator="k2", num_action_tokens=1)
    (gradient,) = torch.autograd.grad(penalty, logits)

    assert gradient.tolist() == pytest.approx([-0.00502, -0.15377, 0.15880], abs=1e-5)


def test_a_masked_token_gives_no_penalty_even_if_it_is_infinite() -> None:
    own = torch.tensor([-0.5, -inf], requires_grad=True)

    penalty = kl_penalty(
        own, torch.tensor([-0.6, -1.0]), torch.tensor([1.0, 0.0]), estimator="k3",
        num_action_tokens=2,
    )  # fmt: skip
    penalty.backward()  # type: ignore[no-untyped-call]

    assert penalty.isfinite()
    assert own.grad is not None
    assert own.grad[1] == 0


def test_entropy_bonus_is_the_weighted_mean() -> None:
    bonus = entropy_bonus(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.5]), num_action_tokens=5)

    assert bonus.item() == pytest.approx(-0.5)


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([[1.5, 1.0], [1.2, 1.0]], [1.3754239, -0.7406129, 0.1058018, -0.7406129]),
        ([[1.45, 1.0], [1.15, 1.0]], [1.4142135, -0.7071067, 0.0, -0.7071067]),
        ([[1.0]], [0.0]),
        ([[2.0, 2.0], []], [0.0, 0.0]),
    ],
)
def test_whitened_returns_have_the_reference_values(
    returns: list[list[float]], expected: list[float]
) -> None:
    found = reinforce_pp([np.array(own) for own in returns], clip=5.0)

    assert np.concatenate(found).tolist() == pytest.approx(expected, abs=1e-6)


def test_generalised_advantages_have_the_reference_values() -> None:
    rows = [
        generalised_advantages(np.array(r), np.array(v), discount=1.0, decay=1.0)
        for r, v in (([0.5, 1.0], [1.0, 2.0]), ([0.2, 1.0], [3.0, 4.0]))
    ]

    assert np.concatenate(rows).tolist() == pytest.approx([0.5, -1.0, -1.8, -3.0])
    whitened = np.concatenate(reinforce_pp(rows, clip=5.0)).tolist()
    assert whitened == pytest.approx([1.2429546, 0.2213481, -0.3235087, -1.1407940], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("decoupled_ppo", {"topr": Topr(kappa=0.2)}),
        ("gspo", {"apg": Apg(weight_limits_positive=(0.0, 1.0))}),
        ("apg", {"decoupled_ppo": DecoupledPpo(clip=0.1)}),
        ("token_tis", {"gspo": Gspo(clip=(0.1, 0.1))}),
    ],
)
def test_the_table_of_another_objective_is_refused(name: Any, tables: dict[str, Any]) -> None:
    (table,) = tables

    with pytest.raises(
        ValueError, match=rf"\[objective\.{table}\] is of .* '{table}'; with '{name}'"
    ):
        Objective(name=name, **tables)


def test_constants_of_a_critic_that_there_is_not_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[objective\.gae\] is of objective.advantage = 'gae'"):
        Objective(gae=Gae(value_clip=1.0))
