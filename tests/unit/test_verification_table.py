"""Rows of the verification table in docs/objectives.md about gradients, by their number.

Policies are tables small enough to sum over everything that can be sampled, so that gradients are
exact numbers and not estimates.
"""

import itertools
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from common.config import Apg, DecoupledPpo, Gspo, Objective
from learner.objectives.policy_loss import PolicyLoss
from learner.objectives.sampled import Normalisers
from tests.exact_policies import BEHAVIOUR, LEARNER, loss_of, numbers


def relative_error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()


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
        chances * TWO_REWARDS, Objective(name="gspo", gspo=Gspo(clip=(1.0, inf))),
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
        V13_ADVANTAGES, Objective(apg=Apg(kappa=inf)), normalisers=Normalisers(tokens=6, actions=3),
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
        Objective(name="gspo", gspo=Gspo(clip=(0.2, 0.6))),
        Objective(name="decoupled_ppo", decoupled_ppo=DecoupledPpo(clip=0.6, behaviour_cap=inf)),
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
B4 = Objective(apg=Apg(kappa=0.3))


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
    objective = Objective(loss_norm=norm, apg=Apg(kappa=0.3))
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
