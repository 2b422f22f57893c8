"""TRL's GRPO trainer as a reference: its loss of given actions, on a model of a folder."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.tiny_policy import VOCABULARY


@dataclass(frozen=True, kw_only=True)
class ActionRows:
    """Actions, one list each: ids before and of the action, and scores of its tokens."""

    prompts: list[list[int]]
    answers: list[list[int]]
    behaviour: list[list[float]]
    reference: list[list[float]]
    advantages: Tensor


def loss_by_trl(
    folder: Path, output: Path, rows: ActionRows, *, temperature: float, old: bool, **settings: Any
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients; ``old``: with the behaviour policy's scores, else as if on-policy."""
    trainer = _trainer(folder, output, temperature, len(rows.prompts), settings)
    prompts, prompt_mask = _padded(rows.prompts, left=True)
    answers, answer_mask = _padded(rows.answers)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": prompt_mask,
        "completion_ids": answers,
        "completion_mask": answer_mask,
        "advantages": rows.advantages,
        "ref_per_token_logps": _padded(rows.reference)[0],
        "num_items_in_batch": answer_mask.sum(),
    }
    if old:
        inputs["old_per_token_logps"] = _padded(rows.behaviour)[0]
    model = trainer.model.eval()
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    return loss.item(), gradients_of(model)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _trainer(
    folder: Path, output: Path, temperature: float, actions: int, settings: dict[str, Any]
) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It says that it does not know this version of vLLM.
        from datasets import IterableDataset
        from trl import GRPOConfig, GRPOTrainer
    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        pad_token="w0", eos_token="w1", unk_token="w0",
    )  # fmt: skip
    arguments = GRPOConfig(
        output_dir=str(output), use_cpu=True, bf16=False, report_to="none", max_steps=1,
        per_device_train_batch_size=actions, num_generations=actions,
        gradient_checkpointing=False, temperature=temperature, **settings,
    )  # fmt: skip
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=IterableDataset.from_generator(_one_prompt),
        processing_class=tokenizer,
    )


def _one_prompt() -> Any:
    yield {"prompt": "w1"}


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
