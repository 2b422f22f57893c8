"""Model folders with random weights for the learner's benchmark."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

TINY: Mapping[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 65536,
    "tie_word_embeddings": True,
}
"""For CPUs. Its output layer has a quarter of the weights, as that of Qwen3-0.6B."""

QWEN3_0_6B: Mapping[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 65536,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}
"""The published shape of Qwen3-0.6B, for positions up to 65,536."""


def write_model(shape: Mapping[str, Any], folder: Path, *, seed: int = 0) -> Path:
    """Write a model of random weights as a Hugging Face folder.

    Args:
        shape: as in its config.json.
        folder: made if need be.
        seed: of the weights.

    Returns:
        The folder.
    """
    settings = {**shape, "bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    return folder


def shape_of(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder."""
    shape: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return shape
