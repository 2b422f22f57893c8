"""Builds the model of a run: adapters, shards, weights, checkpointing and compilation, in order."""

from pathlib import Path

import torch
from transformers import PreTrainedModel

from common.config import Config, Lora
from learner.activation import checkpoint_activations
from learner.compilation import compile_layers
from learner.loading import build_empty, fill
from learner.lora import add_adapters, reset_adapters
from learner.mesh import Rank
from learner.sharding import check_compute_dtype, shard

_NO_ADAPTERS = Lora()


def load_policy(config: Config, rank: Rank) -> PreTrainedModel:
    """Load, shard and prepare the model that ``config`` describes; every rank must call it.

    Raises:
        InputError: the model folder cannot be used.
        ConfigError: model and configuration do not fit.
        EnvironmentFault: the GPU does not compute in ``model.dtype``.
    """
    learner = config.learner
    model = load_sharded(
        config.model.path,
        rank,
        compute_dtype=getattr(torch, config.model.dtype),
        cpu_offload=learner.cpu_offload,
        lora=config.model.lora,
        seed=config.run.seed,
    )
    checkpoint_activations(model, learner.activation_checkpointing)
    if learner.compile:
        compile_layers(model, rank.device)
    return model


def load_sharded(
    path: str | Path,
    rank: Rank,
    *,
    compute_dtype: torch.dtype,
    cpu_offload: bool = False,
    lora: Lora = _NO_ADAPTERS,
    seed: int = 0,
) -> PreTrainedModel:
    """Load a model folder straight into shards; every rank must call it.

    Args:
        path: local Hugging Face folder with safetensors files.
        rank: this process.
        compute_dtype: see ``shard``. Weights that adapters leave frozen are stored in it too.
        cpu_offload: see ``shard``.
        lora: adapters to add; none with rank 0.
        seed: of the adapters' first values.

    Returns:
        The sharded model in training mode.

    Raises:
        InputError: see ``learner.loading``.
        ConfigError: see ``learner.lora.add_adapters``.
        EnvironmentFault: see ``shard``.
    """
    check_compute_dtype(compute_dtype, rank.device)
    model = build_empty(path, dtype=compute_dtype if lora.rank else torch.float32)
    add_adapters(model, lora)
    shard(model, rank, compute_dtype=compute_dtype, cpu_offload=cpu_offload)
    fill(model, path, rank, cpu_offload=cpu_offload)
    reset_adapters(model, seed=seed)
    return model
