"""Losses and their gradients equal those of TRL's GRPO trainer, on the same model and actions.

TRL pads each action to the longest of its batch; here actions are packed. What is compared is the
loss and the gradient on every weight of the model.
"""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Gspo, Objective, TokenTis
from common.wire.records import NOT_AN_ACTION, Segment
from learner.engine.model import load_model, score_targets
from learner.objectives.penalties import entropy_bonus, kl_penalty
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.packs.packing import Pack, pack_segments, segment_of_actions
from tests.tiny_policy import VOCABULARY, make_model
from tests.trl_trainer import ActionRows, gradients_of, loss_by_trl

PROMPTS, LENGTHS = [3, 1, 4, 2], [2, 5, 3, 1]
ADVANTAGES = torch.tensor([1.0, -0.5, -2.0, 0.7])
TOKENS, ACTIONS = sum(LENGTHS), len(LENGTHS)
TEMPERATURE = 0.7


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A model's folder, four actions in one pack with scores, and the same for TRL."""

    folder: Path
    pack: Pack
    own: Tensor
    behaviour: Tensor
    reference: Tensor
    rows: ActionRows

    def by_trl(self, *, old: bool, **settings: Any) -> tuple[float, dict[str, Tensor]]:
        return loss_by_trl(
            self.folder, self.folder / "trainer", self.rows,
            temperature=TEMPERATURE, old=old, **settings,
        )  # fmt: skip


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    """Behaviour log-probabilities around the model's own, so that ratios fall on all sides."""
    folder = tmp_path_factory.mktemp("model")
    make_model(folder)
    rng = np.random.default_rng(3)
    ids = [rng.integers(2, VOCABULARY, p + t) for p, t in zip(PROMPTS, LENGTHS, strict=True)]
    (pack,) = pack_segments([_segment(*each) for each in enumerate(ids)], budget=64)
    with torch.no_grad():
        own = score_targets(load_model(folder), pack, temperature=TEMPERATURE).logprobs
    generator = torch.Generator().manual_seed(1)
    behaviour, reference = (own + 0.3 * torch.randn(TOKENS, generator=generator) for _ in "br")

    def by_action(scores: Tensor) -> list[list[float]]:
        return [scores[pack.action_ids == action].tolist() for action in range(ACTIONS)]

    rows = ActionRows(
        prompts=[row[:first].tolist() for row, first in zip(ids, PROMPTS, strict=True)],
        answers=[row[first:].tolist() for row, first in zip(ids, PROMPTS, strict=True)],
        behaviour=by_action(behaviour),
        reference=by_action(reference),
        advantages=ADVANTAGES,
    )
    return Sampled(
        folder=folder, pack=pack, own=own, behaviour=behaviour, reference=reference, rows=rows
    )


def _segment(action: int, ids: np.ndarray) -> Any:  # type: ignore[type-arg]
    owner = np.where(np.arange(len(ids)) < PROMPTS[action], NOT_AN_ACTION, 0).astype(np.int32)
    segment = Segment(
        token_ids=ids.astype(np.int32),
        action_index=owner,
        behaviour_logprobs=np.zeros(len(ids), dtype=np.float32),
        versions=owner,
    )
    return segment_of_actions(segment, name=str(action), first_action_id=action)


def by_us(
    sampled: Sampled, objective: Objective, *, old: bool, weighted: bool = False
) -> tuple[float, dict[str, Tensor], int]:
    """Loss, gradients, and how many tokens a clip or a truncation touched.

    ``weighted``: the divergence, by the importance weights.
    """
    model, pack = load_model(sampled.folder), sampled.pack
    scores = score_targets(model, pack, temperature=TEMPERATURE, with_entropy=True)
    behaviour = sampled.behaviour if old else sampled.own
    result = policy_loss(
        scores.logprobs,
        SampledActions(
            behaviour_logprobs=behaviour,
            action_ids=pack.action_ids,
            versions=torch.zeros_like(pack.action_ids),
            advantages=ADVANTAGES,
            learner_version=0,
            max_staleness=0,
        ),
        objective=objective,
        normalisers=Normalisers(tokens=TOKENS, actions=ACTIONS),
        proximal_logprobs=behaviour,
    )
    everywhere = torch.ones(TOKENS)
    assert scores.entropies is not None
    divergence = kl_penalty(
        scores.logprobs, sampled.reference, result.token_weights if weighted else everywhere,
        estimator=objective.kl_estimator, num_action_tokens=TOKENS,
    )  # fmt: skip
    bonus = entropy_bonus(scores.entropies, everywhere, num_action_tokens=TOKENS)
    loss = result.loss + objective.kl_reference * divergence + objective.entropy * bonus
    loss.backward()  # type: ignore[no-untyped-call]
    touched = int(result.verdicts.clipped_tokens.sum())
    if objective.name == "token_tis":
        touched = int((result.token_weights >= objective.token_tis.cap).sum())
    return loss.item(), gradients_of(model), touched


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-2
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-3, atol=1e-5 * max(1.0, largest), msg=name
        )


BY_SEQUENCE = {"loss_type": "grpo", "importance_sampling_level": "sequence"}


@pytest.mark.parametrize(
    ("objective", "settings", "touched"),
    [
        (Objective(name="gspo"), {**BY_SEQUENCE, "epsilon": 3e-3, "epsilon_high": 4e-3}, True),
        (
            Objective(name="gspo", gspo=Gspo(clip=(0.5, 0.5))),
            {**BY_SEQUENCE, "epsilon": 0.5},
            False,
        ),
        (Objective(name="decoupled_ppo"), {"loss_type": "dapo", "epsilon": 0.2}, True),
        (
            Objective(name="decoupled_ppo", loss_norm="actions"),
            {"loss_type": "grpo", "epsilon": 0.2},
            True,
        ),
        (
            Objective(name="token_tis", token_tis=TokenTis(cap=1.2)),
            {"loss_type": "cispo", "epsilon_high": 1.2},
            True,
        ),
    ],
    ids=["gspo", "gspo unclipped", "token ppo by tokens", "token ppo by actions", "cispo"],
)
def test_off_policy_loss_and_gradients_are_those_of_trl(
    objective: Objective, settings: dict[str, Any], touched: bool, sampled: Sampled
) -> None:
    expected, gradients = sampled.by_trl(old=True, **settings)

    loss, found, clipped = by_us(sampled, objective, old=True)

    assert loss == pytest.approx(expected, rel=1e-4)
    assert_same_gradients(found, gradients)
    assert clipped < TOKENS
    assert bool(clipped) == touched


@pytest.mark.parametrize("name", ["apg", "topr", "token_tis", "decoupled_ppo"])
def test_on_policy_every_objective_by_tokens_has_the_gradient_of_trl(
    name: Any, sampled: Sampled
) -> None:
    _, gradients = sampled.by_trl(old=False, loss_type="dapo")

    _, found, _ = by_us(sampled, Objective(name=name), old=False)

    assert_same_gradients(found, gradients)


@pytest.mark.parametrize(
    ("penalty", "settings"),
    [
        (
            {"kl_reference": 0.3, "kl_estimator": "k3"},
            {"beta": 0.3, "use_bias_correction_kl": False},
        ),
        ({"entropy": 0.2}, {"entropy_coef": 0.2}),
    ],
    ids=["divergence from a reference", "entropy"],
)
def test_penalties_are_those_of_trl(
    penalty: dict[str, Any], settings: dict[str, Any], sampled: Sampled
) -> None:
    objective = Objective(name="decoupled_ppo", **penalty)
    expected, gradients = sampled.by_trl(old=True, loss_type="dapo", epsilon=0.2, **settings)

    loss, found, _ = by_us(sampled, objective, old=True)

    assert loss == pytest.approx(expected, rel=1e-4)
    assert_same_gradients(found, gradients)


def test_the_weighted_k2_divergence_has_the_gradient_of_the_unbiased_one_of_trl(
    sampled: Sampled,
) -> None:
    """TRL differentiates the ratio times k3, of which the derivative is the ratio times k2's."""
    objective = Objective(
        name="token_tis", kl_reference=0.3, kl_estimator="k2", token_tis=TokenTis(cap=inf)
    )
    _, gradients = sampled.by_trl(old=True, loss_type="cispo", epsilon_high=1e9, beta=0.3)

    _, found, _ = by_us(sampled, objective, old=True, weighted=True)

    assert_same_gradients(found, gradients)
