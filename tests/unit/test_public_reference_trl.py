"""Losses and their gradients equal those of TRL's GRPO trainer, on the same model and actions.

TRL pads each action to the longest of its batch and keeps all logits; here actions are packed.
What is compared is the loss and the gradient on every weight of the model.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from common.config import Objective
from common.messages import NOT_AN_ACTION, Segment
from learner.engine.model import load_model, score_targets
from learner.objectives.penalties import entropy_bonus, kl_penalty
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.packs.packing import Pack, pack_segments, segment_of_actions
from tests.tiny_policy import VOCABULARY, make_model

TrainerOf = Callable[..., tuple[Any, nn.Module]]

PROMPTS, LENGTHS = [3, 1, 4, 2], [2, 5, 3, 1]
ADVANTAGES = torch.tensor([1.0, -0.5, -2.0, 0.7])
TOKENS, ACTIONS = sum(LENGTHS), len(LENGTHS)
TEMPERATURE = 0.7


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Four actions in one pack: ids by action, and scores of their tokens end to end."""

    prompts: list[list[int]]
    answers: list[list[int]]
    pack: Pack
    own: Tensor
    behaviour: Tensor
    reference: Tensor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_model(path)
    return path


@pytest.fixture(scope="module")
def sampled(folder: Path) -> Sampled:
    """Behaviour log-probabilities around the model's own, so that ratios fall on all sides."""
    rng = np.random.default_rng(3)
    ids = [rng.integers(2, VOCABULARY, p + t) for p, t in zip(PROMPTS, LENGTHS, strict=True)]
    segments = []
    for action, (row, first) in enumerate(zip(ids, PROMPTS, strict=True)):
        owner = np.where(np.arange(len(row)) < first, NOT_AN_ACTION, 0).astype(np.int32)
        segment = Segment(
            token_ids=row.astype(np.int32),
            action_index=owner,
            behaviour_logprobs=np.zeros(len(row), dtype=np.float32),
            versions=owner,
        )
        segments.append(segment_of_actions(segment, name=str(action), first_action_id=action))
    (pack,) = pack_segments(segments, budget=64)
    with torch.no_grad():
        own = score_targets(load_model(folder), pack, temperature=TEMPERATURE).logprobs
    generator = torch.Generator().manual_seed(1)
    noise = [0.3 * torch.randn(len(own), generator=generator) for _ in range(2)]
    return Sampled(
        prompts=[row[:first].tolist() for row, first in zip(ids, PROMPTS, strict=True)],
        answers=[row[first:].tolist() for row, first in zip(ids, PROMPTS, strict=True)],
        pack=pack,
        own=own,
        behaviour=own + noise[0],
        reference=own + noise[1],
    )


@pytest.fixture(scope="module")
def trainer_of(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainerOf:
    """``trainer_of(**settings)``: a GRPO trainer of the model in ``folder``, and its model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says that it does not know this version of vLLM.
        from datasets import IterableDataset
        from trl import GRPOConfig, GRPOTrainer
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        pad_token="w0", eos_token="w1", unk_token="w0",
    )  # fmt: skip

    def build(**settings: Any) -> tuple[Any, nn.Module]:
        arguments = GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("trainer")), use_cpu=True, bf16=False,
            report_to="none", max_steps=1, per_device_train_batch_size=ACTIONS,
            num_generations=ACTIONS, gradient_checkpointing=False, temperature=TEMPERATURE,
            **settings,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=lambda completions, **_: [0.0] * len(completions),
            args=arguments,
            train_dataset=IterableDataset.from_generator(_one_prompt),
            processing_class=tokenizer,
        )
        return trainer, trainer.model.eval()

    return build


def _one_prompt() -> Any:
    yield {"prompt": "w1"}


def by_trl(
    trainer_of: TrainerOf, sampled: Sampled, *, old: bool, **settings: Any
) -> tuple[float, dict[str, Tensor]]:
    trainer, model = trainer_of(**settings)
    prompts, prompt_mask = _padded(sampled.prompts, left=True)
    answers, answer_mask = _padded(sampled.answers)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": answers,
        "completion_mask": answer_mask,
        "advantages": ADVANTAGES,
        "ref_per_token_logps": _padded(_by_action(sampled, sampled.reference))[0],
        "num_items_in_batch": answer_mask.sum(),
    }
    if old:
        inputs["old_per_token_logps"] = _padded(_by_action(sampled, sampled.behaviour))[0]
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    return loss.item(), _gradients(model)


def by_us(
    folder: Path, sampled: Sampled, objective: Objective, *, old: bool, weighted: bool = False
) -> tuple[float, dict[str, Tensor], int]:
    """Loss, gradients, and how many tokens a clip or a truncation touched.

    ``weighted``: the divergence, by the importance weights.
    """
    model = load_model(folder)
    pack = sampled.pack
    scores = score_targets(model, pack, temperature=TEMPERATURE, with_entropy=True)
    behaviour = sampled.behaviour if old else sampled.own
    actions = SampledActions(
        behaviour_logprobs=behaviour,
        action_ids=pack.action_ids,
        versions=torch.zeros_like(pack.action_ids),
        advantages=ADVANTAGES,
        learner_version=0,
        max_staleness=0,
    )
    result = policy_loss(
        scores.logprobs,
        actions,
        objective=objective,
        normalisers=Normalisers(tokens=TOKENS, actions=ACTIONS),
        proximal_logprobs=behaviour,
    )
    everywhere = torch.ones(TOKENS)
    assert scores.entropies is not None
    loss = result.loss + objective.kl_reference * kl_penalty(
        scores.logprobs, sampled.reference, result.token_weights if weighted else everywhere,
        estimator=objective.kl_estimator, num_action_tokens=TOKENS,
    )  # fmt: skip
    loss = loss + objective.entropy * entropy_bonus(
        scores.entropies, everywhere, num_action_tokens=TOKENS
    )
    loss.backward()  # type: ignore[no-untyped-call]
    touched = int(result.verdicts.clipped_tokens.sum())
    if objective.name == "token_tis":
        touched = int((result.token_weights >= objective.token_cap).sum())
    return loss.item(), _gradients(model), touched


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _by_action(sampled: Sampled, scores: Tensor) -> list[list[float]]:
    order = [scores[sampled.pack.action_ids == action] for action in range(ACTIONS)]
    return [own.tolist() for own in order]


def _padded(rows: Any, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """[rows, longest] with zeros, and where the rows are."""
    longest = max(map(len, rows))
    empty = [[0] * (longest - len(row)) for row in rows]
    fill = [e + r if left else r + e for e, r in zip(empty, rows, strict=True)]
    here = [
        [0] * len(e) + [1] * len(r) if left else [1] * len(r) + [0] * len(e)
        for e, r in zip(empty, rows, strict=True)
    ]
    return torch.tensor(fill), torch.tensor(here)


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-2
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-3, atol=1e-5 * max(1.0, largest), msg=name
        )


@pytest.mark.parametrize(
    ("objective", "settings", "touched"),
    [
        (
            Objective(name="gspo"),
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-3,
             "epsilon_high": 4e-3},
            1,
        ),
        (
            Objective(name="gspo", gspo_clip=(0.5, 0.5)),
            {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.5},
            0,
        ),
        (Objective(name="decoupled_ppo"), {"loss_type": "dapo", "epsilon": 0.2}, 1),
        (
            Objective(name="decoupled_ppo", loss_norm="actions"),
            {"loss_type": "grpo", "epsilon": 0.2},
            1,
        ),
        (
            Objective(name="token_tis", token_cap=1.2),
            {"loss_type": "cispo", "epsilon_high": 1.2},
            1,
        ),
    ],
    ids=["gspo", "gspo unclipped", "token ppo by tokens", "token ppo by actions", "cispo"],
)  # fmt: skip
def test_off_policy_loss_and_gradients_are_those_of_trl(
    objective: Objective,
    settings: dict[str, Any],
    touched: int,
    folder: Path,
    sampled: Sampled,
    trainer_of: TrainerOf,
) -> None:
    expected, gradients = by_trl(trainer_of, sampled, old=True, **settings)

    loss, found, clipped = by_us(folder, sampled, objective, old=True)

    assert loss == pytest.approx(expected, rel=1e-4)
    assert_same_gradients(found, gradients)
    assert clipped < TOKENS
    assert bool(clipped) == bool(touched)


@pytest.mark.parametrize("name", ["apg", "topr", "token_tis", "decoupled_ppo"])
def test_on_policy_every_objective_by_tokens_has_the_gradient_of_trl(
    name: Any,
    folder: Path,
    sampled: Sampled,
    trainer_of: TrainerOf,
) -> None:
    _, gradients = by_trl(trainer_of, sampled, old=False, loss_type="dapo")

    _, found, _ = by_us(folder, sampled, Objective(name=name), old=False)

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
    penalty: dict[str, Any],
    settings: dict[str, Any],
    folder: Path,
    sampled: Sampled,
    trainer_of: TrainerOf,
) -> None:
    objective = Objective(name="decoupled_ppo", **penalty)
    expected, gradients = by_trl(
        trainer_of, sampled, old=True, loss_type="dapo", epsilon=0.2, **settings
    )

    loss, found, _ = by_us(folder, sampled, objective, old=True)

    assert loss == pytest.approx(expected, rel=1e-4)
    assert_same_gradients(found, gradients)


def test_the_weighted_k2_divergence_has_the_gradient_of_the_unbiased_one_of_trl(
    folder: Path, sampled: Sampled, trainer_of: TrainerOf
) -> None:
    """TRL differentiates the ratio times k3, of which the derivative is the ratio times k2's."""
    objective = Objective(name="token_tis", token_cap=inf, kl_reference=0.3, kl_estimator="k2")
    _, gradients = by_trl(
        trainer_of, sampled, old=True, loss_type="cispo", epsilon_high=1e9, beta=0.3
    )

    _, found, _ = by_us(folder, sampled, objective, old=True, weighted=True)

    assert_same_gradients(found, gradients)
