"""Process group, device mesh and FSDP2: one code path from a single CPU process to many GPUs."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

_COLLECTIVE_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """This process among those that train together."""

    index: int
    count: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which owns trajectories, checkpoints' names and reports."""
        return self.index == 0


@contextmanager
def training_processes(init_method: str | None = None) -> Iterator[Rank]:
    """Join the process group for as long as the context lasts: NCCL on CUDA, gloo on CPU.

    Rank and world size come from the environment as torchrun sets it; without it this is a
    world of one process, with the same code path.

    Args:
        init_method: rendezvous URL for tests; by default the one of the environment, or an
            in-process store for a single process.
    """
    index, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device_of(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    alone = count == 1 and init_method is None
    dist.init_process_group(
        backend,
        init_method=init_method,
        store=HashStore() if alone else None,
        rank=index,
        world_size=count,
        timeout=_COLLECTIVE_TIMEOUT,
    )
    try:
        mesh = init_device_mesh(device.type, (count,), mesh_dim_names=("shard",))
        yield Rank(index=index, count=count, device=device, mesh=mesh)
    finally:
        dist.destroy_process_group()


def _device_of(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch alike on every rank; nothing in training depends on rank."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def shard(model: nn.Module, rank: Rank, *, compute_dtype: torch.dtype) -> nn.Module:
    """Shard the model over all ranks, layer by layer, in place (FSDP2).

    Weights, gradients and optimizer state stay float32; compute and all-gather run in
    ``compute_dtype``; gradients are reduced in float32. Embeddings and output layer, which may
    be the same tensor, form the root's group.

    Args:
        model: a causal language model whose decoder layers are ``model.model.layers``.
        rank: this process.
        compute_dtype: torch.float32 or torch.bfloat16.

    Returns:
        The same model.
    """
    model.to(rank.device)
    policy = MixedPrecisionPolicy(
        param_dtype=None if compute_dtype == torch.float32 else compute_dtype,
        reduce_dtype=torch.float32,
    )
    for layer in model.get_submodule("model.layers").children():
        fully_shard(layer, mesh=rank.mesh, mp_policy=policy)
    fully_shard(model, mesh=rank.mesh, mp_policy=policy)
    return model


def full_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Gather the whole weights on rank 0; every rank must call it.

    Returns:
        On rank 0 all tensors by their Hugging Face names, contiguous, on CPU and independent of
        the model's storage; tied weights appear once. Elsewhere an empty dictionary.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(model, options=options)
    if dist.is_initialized() and dist.get_rank() != 0:
        return {}
    tied = tied_names(model)
    return {
        name: tensor.detach().clone().contiguous()
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and name not in tied
    }


def tied_names(model: nn.Module) -> set[str]:
    """Names that are second names of another parameter, as ``lm_head.weight`` often is."""
    every = dict(model.named_parameters(remove_duplicate=False))
    return set(every) - set(dict(model.named_parameters()))
