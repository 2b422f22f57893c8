"""Random tiny models and trajectories for the learner's tests."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from common.wire.records import NOT_AN_ACTION, Outcome, Purpose, Segment, Step, Trajectory

VOCABULARY = 50
FAMILIES = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
}


def make_model(
    folder: Path, family: str = "qwen3", *, tied: bool = True, key_heads: int = 2, width: int = 32
) -> PreTrainedModel:
    """Write a random model of two layers to ``folder`` and return it, with stock attention."""
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    config = config_class(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=key_heads,
        head_dim=width // 4,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = model_class(config).float()
    model.save_pretrained(folder)
    return model


def make_trajectories(
    *, groups: int = 3, size: int = 4, seed: int = 0, version: int = 5
) -> list[Trajectory]:
    """Random groups: one to three actions each, some trimmed into two segments."""
    rng = np.random.default_rng(seed)
    return [
        _make_trajectory(f"g{group}", member, rng, version)
        for group in range(groups)
        for member in range(size)
    ]


def _make_trajectory(group: str, member: int, rng: np.random.Generator, version: int) -> Trajectory:
    steps = int(rng.integers(1, 4))
    trimmed_at = steps if rng.random() < 0.7 else int(rng.integers(1, steps + 1))
    parts = [list(range(trimmed_at)), list(range(trimmed_at, steps))]
    return Trajectory(
        trajectory_id=f"{group}/{member}",
        task_id=f"task-{group}",
        group_id=group,
        sample_index=member,
        purpose=Purpose.TRAIN,
        actor_id="a0",
        outcome=Outcome.SUBMITTED,
        segments=tuple(_make_segment(part, rng, version) for part in parts if part),
        step_rewards=rng.random(steps).astype(np.float32),
        steps=tuple(Step(action="", code=None, observation="") for _ in range(steps)),
        answer=None,
        scores={},
    )


def _make_segment(actions: list[int], rng: np.random.Generator, version: int) -> Segment:
    owners = [NOT_AN_ACTION] * int(rng.integers(1, 6))
    for action in actions:
        owners += [action] * int(rng.integers(1, 7)) + [NOT_AN_ACTION] * int(rng.integers(0, 4))
    owner = np.array(owners, dtype=np.int32)
    sampled = owner != NOT_AN_ACTION
    length = len(owner)
    versions = rng.integers(version - 2, version + 1, length)
    return Segment(
        token_ids=rng.integers(0, VOCABULARY, length).astype(np.int32),
        action_index=owner,
        behaviour_logprobs=np.where(sampled, -4 * rng.random(length), 0).astype(np.float32),
        versions=np.where(sampled, versions, NOT_AN_ACTION).astype(np.int32),
    )
