"""The action policy gradient equals its formula, written as a slow loop and as golden numbers."""

from dataclasses import dataclass
from math import exp, log, nan, sqrt

import pytest
import torch
from torch import Tensor

from common.config import Apg, Objective
from learner.objectives.policy_loss import ActionVerdicts, PolicyLoss, policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.objectives.weighted import action_weights
from learner.sft.loss import cross_entropy

DEFAULTS = Objective()


@dataclass(frozen=True, kw_only=True)
class Actions:
    """Actions as lists, before they are laid out flat."""

    deltas: list[list[float]]
    behaviour: list[list[float]]
    versions: list[list[int]]
    advantages: list[float]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.deltas))


# One action of every kind: beyond kappa with A > 0 twice and with A < 0, inside, vetoed, without
# tokens, and too stale.
GOLDEN = Actions(
    deltas=[
        [0.1, -0.05, 0.02, 0.03],
        [0.2, 0.15],
        [-0.2, -0.1, -0.1],
        [0.3, 0.2],
        [-0.1],
        [9.5, 0.1],
        [],
        [0.05, 0.0, -0.02],
    ],
    behaviour=[
        [-0.5, -1.0, -0.2, -0.7],
        [-0.3, -0.4],
        [-1.0, -1.0, -1.0],
        [-0.6, -0.1],
        [-0.9],
        [-12.0, -0.2],
        [],
        [-0.4, -0.4, -0.4],
    ],
    versions=[[10] * 4, [9, 10], [8] * 3, [10, 10], [7], [10, 10], [], [1, 9, 10]],
    advantages=[1.0, 1.0, -1.0, -0.5, 0.8, -2.0, 1.0, 0.6],
)
GOLDEN_GRADIENTS = [-0.06501005, 0.0, 0.0, 0.02941176, -0.04258058, 0.0, None, 0.0]


def apg(
    learner: Tensor,
    behaviour: Tensor,
    owner: Tensor,
    versions: Tensor,
    advantages: Tensor,
    *,
    learner_version: int,
    max_staleness: int,
    num_action_tokens: int,
    objective: Objective,
) -> PolicyLoss:
    sampled = SampledActions(
        behaviour_logprobs=behaviour,
        action_ids=owner,
        versions=versions,
        advantages=advantages,
        learner_version=learner_version,
        max_staleness=max_staleness,
    )
    counts = Normalisers(tokens=num_action_tokens, actions=len(owner.unique()))
    return policy_loss(learner, sampled, objective=objective, normalisers=counts)


def run_apg(
    actions: Actions, *, objective: Objective = DEFAULTS, order: list[int] | None = None
) -> tuple[PolicyLoss, Tensor, Tensor]:
    """The result, the gradient on each token, and the action of each token."""
    tokens = [(i, t) for i, action in enumerate(actions.deltas) for t in range(len(action))]
    if order is not None:
        tokens = [tokens[place] for place in order]
    behaviour = torch.tensor([actions.behaviour[i][t] for i, t in tokens])
    delta = torch.tensor([actions.deltas[i][t] for i, t in tokens])
    learner = (behaviour + delta).requires_grad_()
    result = apg(
        learner,
        behaviour,
        torch.tensor([i for i, _ in tokens]),
        torch.tensor([actions.versions[i][t] for i, t in tokens]),
        torch.tensor(actions.advantages),
        learner_version=10,
        max_staleness=8,
        num_action_tokens=max(1, actions.num_tokens),
        objective=objective,
    )
    (gradient,) = torch.autograd.grad(result.loss, learner)
    return result, gradient, torch.tensor([i for i, _ in tokens])


def apg_by_loop(actions: Actions, objective: Objective) -> tuple[float, list[float]]:
    """Loss and gradient per token of each action, in the order of the formula."""
    loss, gradients = 0.0, []
    for deltas, behaviour, versions, advantage in zip(
        actions.deltas, actions.behaviour, actions.versions, actions.advantages, strict=True
    ):
        if not deltas:
            gradients.append(0.0)
            continue
        total = sum(deltas)
        raw = exp(max(-20.0, min(20.0, min(1.0, sqrt(objective.apg.t_ref / len(deltas))) * total)))
        limits = (
            objective.apg.weight_limits_positive
            if advantage >= 0
            else objective.apg.weight_limits_negative
        )
        weight = min(max(raw, limits[0]), limits[1])
        score = total / sqrt(len(deltas))
        keep = not (advantage > 0 and score > objective.apg.kappa)
        keep = keep and not (advantage < 0 and score < -objective.apg.kappa)
        keep = keep and max(abs(d) for d in deltas) <= log(objective.token_veto)
        keep = keep and 10 - min(versions) <= 8
        coefficient = weight * keep * advantage / actions.num_tokens
        logprobs = sum(mu + d for mu, d in zip(behaviour, deltas, strict=True))
        loss -= coefficient * logprobs if keep else 0.0
        gradients.append(-coefficient)
    return loss, gradients


def random_actions(seed: int, scale: float, longest: int = 6) -> Actions:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest + 1, (12,), generator=generator).tolist()

    def numbers(length: int) -> list[float]:
        return torch.randn(length, generator=generator).tolist()

    return Actions(
        deltas=[[scale * x for x in numbers(n)] for n in lengths],
        behaviour=[[-abs(x) for x in numbers(n)] for n in lengths],
        versions=[torch.randint(0, 11, (n,), generator=generator).tolist() for n in lengths],
        advantages=numbers(12),
    )


def test_golden_batch_has_the_reference_loss_and_gradients() -> None:
    result, gradient, owner = run_apg(GOLDEN)

    assert result.loss.item() == pytest.approx(0.18622136, abs=1e-7)
    for action, expected in enumerate(GOLDEN_GRADIENTS):
        own = gradient[owner == action]
        if expected is None:
            assert len(own) == 0
        else:
            torch.testing.assert_close(own, torch.full_like(own, expected), atol=1e-7, rtol=0)


def test_golden_batch_normalised_by_actions_has_the_reference_loss() -> None:
    by_actions = run_apg(GOLDEN, objective=Objective(loss_norm="actions"))[0]

    assert by_actions.loss.item() == pytest.approx(0.18704903, abs=1e-7)


def test_verdicts_name_the_reason_of_every_mask() -> None:
    verdicts = run_apg(GOLDEN)[0].verdicts

    assert verdicts.ratios.present.tolist() == [True] * 6 + [False, True]
    assert verdicts.outside_trust_region.nonzero().flatten().tolist() == [1, 2]
    assert verdicts.ratios.vetoed.nonzero().flatten().tolist() == [5]
    assert verdicts.ratios.too_stale.nonzero().flatten().tolist() == [7]
    assert verdicts.ratios.not_finite.nonzero().flatten().tolist() == []
    assert verdicts.ratios.staleness.tolist() == [0, 1, 2, 0, 3, 0, 0, 9]


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0], ids=["inside", "partly", "truncated"])
@pytest.mark.parametrize("t_ref", [512.0, 2.0], ids=["exact", "tempered"])
def test_loss_and_gradient_equal_a_slow_loop(scale: float, t_ref: float) -> None:
    objective = Objective(apg=Apg(t_ref=t_ref))
    actions = random_actions(3, scale)

    result, gradient, owner = run_apg(actions, objective=objective)

    loss, gradients = apg_by_loop(actions, objective)
    assert result.loss.item() == pytest.approx(loss, rel=1e-4, abs=1e-7)
    expected = torch.tensor(gradients)[owner]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


def test_on_the_behaviour_policy_it_is_reinforce() -> None:
    actions = random_actions(1, 0.0)
    fresh = Actions(
        deltas=actions.deltas,
        behaviour=actions.behaviour,
        versions=[[10] * len(v) for v in actions.versions],
        advantages=actions.advantages,
    )

    result, gradient, owner = run_apg(fresh)

    expected = -torch.tensor(fresh.advantages)[owner] / fresh.num_tokens
    torch.testing.assert_close(gradient, expected)
    assert not bool(result.verdicts.masked.any())


SEQUENCES = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
LEARNER_LOGITS = torch.tensor([[0.3, -0.2], [0.1, 0.6], [-0.4, 0.5]])
BEHAVIOUR_LOGITS = torch.tensor([[-0.1, 0.4], [0.5, -0.2], [0.3, 0.0]])
REWARDS = torch.tensor([1.0, 0.0, 0.25, 0.75])
UNBOUNDED = Objective(
    apg=Apg(weight_limits_positive=(0.0, 100.0), weight_limits_negative=(0.0, 100.0), kappa=100.0)
)


def sequence_logprobs(logits: Tensor, sequences: Tensor) -> Tensor:
    """[S, 2] of two-symbol sequences; row 0 is the first token's, row 1 + x follows symbol x."""
    rows = logits.log_softmax(-1)
    first = rows[0][sequences[:, 0]]
    second = rows[1 + sequences[:, 0], sequences[:, 1]]
    return torch.stack([first, second], dim=1)


def apg_of_sequences(
    logits: Tensor, sequences: Tensor, advantages: Tensor, objective: Objective, tokens: int
) -> PolicyLoss:
    return apg(
        sequence_logprobs(logits, sequences).flatten(),
        sequence_logprobs(BEHAVIOUR_LOGITS, sequences).flatten(),
        torch.arange(len(sequences)).repeat_interleave(2),
        torch.zeros(2 * len(sequences), dtype=torch.int64),
        advantages,
        learner_version=0,
        max_staleness=0,
        num_action_tokens=tokens,
        objective=objective,
    )


def test_a_tabular_policy_has_the_reference_weights_loss_and_gradient() -> None:
    logits = LEARNER_LOGITS.clone().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.5])

    result = apg_of_sequences(logits, SEQUENCES[1:], advantages, Objective(apg=Apg(kappa=100.0)), 6)
    (gradient,) = torch.autograd.grad(result.loss, logits)

    expected = [-0.10494806, 0.10494806, 0.12584689, -0.12584689, 0.06057088, -0.06057088]
    weights = torch.tensor([2.0, 0.30519675, 1.01328889])
    torch.testing.assert_close(result.verdicts.weight, weights)
    assert result.loss.item() == pytest.approx(0.31443018, abs=1e-6)
    torch.testing.assert_close(gradient.flatten(), torch.tensor(expected), rtol=0, atol=1e-6)


def test_without_limits_the_expected_gradient_is_the_on_policy_one() -> None:
    """All sequences, each with its chance under the behaviour policy as advantage factor."""
    logits = LEARNER_LOGITS.clone().requires_grad_()
    chances = sequence_logprobs(BEHAVIOUR_LOGITS, SEQUENCES).sum(1).exp()
    expected_reward = (sequence_logprobs(logits, SEQUENCES).sum(1).exp() * REWARDS).sum()
    (exact,) = torch.autograd.grad(expected_reward, logits)

    result = apg_of_sequences(logits, SEQUENCES, chances * REWARDS, UNBOUNDED, 1)
    (gradient,) = torch.autograd.grad(result.loss, logits)

    torch.testing.assert_close(-gradient, exact, rtol=1e-5, atol=1e-6)


def test_long_actions_are_tempered_and_short_ones_are_not() -> None:
    log_rho, lengths = torch.tensor([1.5, 1.5]), torch.tensor([1024, 512])

    found = action_weights(
        log_rho, lengths, torch.ones(2), t_ref=512.0, limits=((0.0, 100.0), (0.0, 1.0))
    )

    torch.testing.assert_close(found, torch.tensor([2.88827712, 4.48168907]))


def test_order_of_tokens_does_not_matter() -> None:
    backwards = list(reversed(range(GOLDEN.num_tokens)))

    straight = run_apg(GOLDEN)[0].loss
    reversed_ = run_apg(GOLDEN, order=backwards)[0].loss

    torch.testing.assert_close(straight, reversed_)


@pytest.mark.parametrize("split", [[0, 1, 2], [0, 0, 1], [0, 1, 1], [1, 0, 2]])
def test_losses_of_packs_add_up_however_actions_are_split(split: list[int]) -> None:
    """Three actions of 2, 3 and 1 tokens; ``split`` is the pack of each."""
    learner = [[-0.5, -1.0], [-0.2, -0.3, -0.4], [-2.0]]
    behaviour = [[-0.6, -0.9], [-0.2, -0.5, -0.1], [-1.5]]

    total = 0.0
    for pack in sorted(set(split)):
        members = [i for i in range(3) if split[i] == pack]
        owner = torch.tensor([i for i in members for _ in learner[i]])
        total += apg(
            torch.tensor([x for i in members for x in learner[i]]),
            torch.tensor([x for i in members for x in behaviour[i]]),
            owner,
            torch.zeros_like(owner),
            torch.tensor([1.0, -0.5, 2.0]),
            learner_version=0,
            max_staleness=0,
            num_action_tokens=6,
            objective=Objective(apg=Apg(kappa=0.3)),
        ).loss.item()

    assert total == pytest.approx(0.58649097, abs=1e-7)


@pytest.mark.parametrize("broken", [-float("inf"), nan, -9999.0], ids=["inf", "nan", "sentinel"])
def test_a_broken_behaviour_logprob_masks_its_action_only(broken: float) -> None:
    learner = torch.tensor([-0.5, -0.5, -0.7], requires_grad=True)
    behaviour = torch.tensor([-0.5, broken, -0.7])

    result = apg(
        learner,
        behaviour,
        torch.tensor([0, 0, 1]),
        torch.tensor([10, 10, 10]),
        torch.tensor([1.0, 1.0]),
        learner_version=10,
        max_staleness=8,
        num_action_tokens=3,
        objective=DEFAULTS,
    )
    (gradient,) = torch.autograd.grad(result.loss, learner)

    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, -1 / 3]))
    assert result.verdicts.masked.tolist() == [True, False]


def test_a_pack_without_targets_has_a_loss_to_differentiate() -> None:
    learner = torch.zeros(0, requires_grad=True)
    nothing = torch.zeros(0, dtype=torch.int64)

    result = apg(
        learner,
        torch.zeros(0),
        nothing,
        nothing,
        torch.tensor([1.0]),
        learner_version=1,
        max_staleness=0,
        num_action_tokens=5,
        objective=DEFAULTS,
    )
    result.loss.backward()

    assert result.loss.item() == 0.0
    assert isinstance(result.verdicts, ActionVerdicts)
    assert not bool(result.verdicts.masked.any())


def test_cross_entropy_of_two_packs_adds_up_to_the_weighted_mean() -> None:
    logprobs, weights = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([1.0, 0.3, 1.0])

    parts = [
        cross_entropy(logprobs[:1], weights[:1], total_weight=2.3),
        cross_entropy(logprobs[1:], weights[1:], total_weight=2.3),
    ]

    assert sum(part.item() for part in parts) == pytest.approx((1 + 0.6 + 3) / 2.3)
