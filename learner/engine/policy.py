"""Builds the model of a run: adapters, shards, weights, checkpointing and compilation, in order."""

import logging
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from common.config import Config, Lora
from common.errors import ConfigError
from common.model_config import read_model_config
from learner.engine.activation import checkpoint_activations
from learner.engine.compilation import compile_layers
from learner.engine.loading import build_empty, fill
from learner.engine.lora import add_adapters, reset_adapters
from learner.engine.memory import (
    FreeMemory,
    check_memory,
    free_memory,
    ranks_on_this_machine,
)
from learner.engine.mesh import Rank, check_arrangement
from learner.engine.model import check_model_folder
from learner.engine.model_shape import ModelShape, shape_of
from learner.engine.sharding import check_compute_dtype, shard

log = logging.getLogger(__name__)

_NO_ADAPTERS = Lora()


def load_policy(config: Config, rank: Rank) -> PreTrainedModel:
    """Load, shard and prepare the model that ``config`` describes; every rank must call it.

    Raises:
        InputError: the model folder cannot be used.
        ConfigError: model and configuration do not fit.
        MachineError: there is too little memory, or the GPU does not compute in
            ``model.dtype``.
    """
    learner = config.learner
    check_fit(config, free_memory(rank.device, ranks_here=ranks_on_this_machine()))
    # No rank takes memory before all have seen how much is free.
    dist.all_reduce(torch.zeros(1))
    model = load_sharded(
        config.model.path,
        rank,
        compute_dtype=getattr(torch, config.model.compute_dtype),
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
    frozen: bool = False,
) -> PreTrainedModel:
    """Load a model folder straight into shards; every rank must call it.

    Args:
        path: local Hugging Face folder with safetensors files.
        rank: this process.
        compute_dtype: see ``shard``. Weights that adapters leave frozen are stored in it too.
        cpu_offload: see ``shard``.
        lora: adapters to add; none with rank 0.
        seed: of the adapters' first values.
        frozen: whether no weight is ever trained; they are then stored in ``compute_dtype``.

    Returns:
        The sharded model in training mode.

    Raises:
        InputError: see ``learner.engine.loading``.
        ConfigError: see ``learner.engine.lora.add_adapters``.
        MachineError: see ``shard``.
    """
    check_compute_dtype(compute_dtype, rank.device)
    model = build_empty(path, dtype=compute_dtype if lora.rank or frozen else torch.float32)
    model.requires_grad_(not frozen)
    add_adapters(model, lora)
    shard(model, rank, compute_dtype=compute_dtype, cpu_offload=cpu_offload)
    fill(model, path, rank, cpu_offload=cpu_offload)
    reset_adapters(model, seed=seed)
    return model


def check_fit(config: Config, free: FreeMemory) -> None:
    """Check, without loading anything, that a run's model fits its configuration and machine.

    Args:
        config: of the run.
        free: memory that one rank may use.

    Raises:
        InputError: see ``learner.engine.model.check_model_folder``.
        ConfigError: numbers of ranks, replicas or attention heads do not divide.
        MachineError: see ``learner.engine.memory.check_memory``.
    """
    learner, folder = config.learner, Path(config.model.path)
    check_arrangement(
        learner.ranks, replicas=learner.replicas, context_parallel=learner.context_parallel
    )
    check_model_folder(folder)
    description = read_model_config(folder)
    shape = shape_of(description)
    _check_heads(shape, config.policy_server.tensor_parallel)
    if warning := check_memory(description, config, free):
        log.warning("%s", warning)


def _check_heads(shape: ModelShape, tensor_parallel: int) -> None:
    divides = shape.key_heads % tensor_parallel == 0 or tensor_parallel % shape.key_heads == 0
    if shape.heads % tensor_parallel or not divides:
        raise ConfigError(
            f"policy_server.tensor_parallel is {tensor_parallel}, which does not divide the "
            f"model's {shape.heads} attention heads and {shape.key_heads} key heads; choose a "
            "divisor of both"
        )
