"""FSDP2 and the state it shards: one code path from a single CPU process to many GPUs."""

import random
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)

from common.errors import MachineError
from learner.engine.lora import adapted_layers, is_adapter
from learner.engine.mesh import Rank
from learner.engine.shards import gather


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch alike on every rank; nothing in training depends on rank."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def shard(
    model: nn.Module, rank: Rank, *, compute_dtype: torch.dtype, cpu_offload: bool = False
) -> nn.Module:
    """Shard the model over the ranks of ``rank.mesh``, layer by layer, in place (FSDP2).

    Trainable weights, gradients and optimizer state stay float32; compute and all-gather run in
    ``compute_dtype``; gradients are reduced in float32. Embeddings and output layer, which may
    be the same tensor, form the root's group.

    Args:
        model: a causal language model whose decoder layers are ``model.model.layers``; on the
            CPU, on the rank's device or, to be filled by ``learner.engine.loading``, on no device.
        rank: this process.
        compute_dtype: torch.float32 or torch.bfloat16.
        cpu_offload: keep shards, gradients and optimizer state on the CPU; a layer's weights go
            to the device while it is used.

    Returns:
        The same model.

    Raises:
        MachineError: the GPU cannot compute in ``compute_dtype``.
    """
    check_compute_dtype(compute_dtype, rank.device)
    policy = MixedPrecisionPolicy(
        param_dtype=None if compute_dtype == torch.float32 else compute_dtype,
        reduce_dtype=torch.float32,
    )
    offload = OffloadPolicy()
    if cpu_offload:
        offload = CPUOffloadPolicy(pin_memory=rank.device.type == "cuda")
    for part in (*model.get_submodule("model.layers").children(), model):
        fully_shard(part, mesh=rank.mesh, mp_policy=policy, offload_policy=offload)
    return model


def check_compute_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Check that a device computes in a type.

    Raises:
        MachineError: it does not.
    """
    if dtype != torch.bfloat16 or device.type != "cuda":
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise MachineError(
            f"{torch.cuda.get_device_name(device)} does not compute in bfloat16, which needs "
            'compute capability 8.0; set model.dtype = "float32" or use another GPU'
        )


def reduce_now(model: nn.Module, *, now: bool) -> None:
    """Say whether the next backward pass sums gradients over replicas.

    With several replicas it is enough to do so in the last backward pass before an optimizer
    step; until then every replica adds up its own sums. Without replicas nothing changes.
    """
    cast(FSDPModule, model).set_requires_all_reduce(now)


@torch.no_grad()
def full_state_dict(model: nn.Module, *, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Gather the whole weights on rank 0, one tensor after another; every rank must call it.

    Adapters are merged into the weights they adapt.

    Args:
        model: sharded or not.
        dtype: type of the result; None for the type each tensor is stored in.

    Returns:
        On rank 0 all tensors by their Hugging Face names, contiguous, on CPU and independent of
        the model's storage; tied weights appear once. Elsewhere an empty dictionary.
    """
    adapted = {f"{name}.weight": layer for name, layer in adapted_layers(model)}
    tied = tied_names(model)
    named = (
        (name, adapted[name].merged() if name in adapted else tensor)
        for name, tensor in model.state_dict().items()
        if name not in tied and not is_adapter(name)
    )
    return gather(named, dtype=dtype)


def tied_names(model: nn.Module) -> set[str]:
    """Names that are second names of another parameter, as ``lm_head.weight`` often is."""
    every = dict(model.named_parameters(remove_duplicate=False))
    return set(every) - set(dict(model.named_parameters()))
