"""The processes that train together, and what each of them shares with which others.

R ranks hold ``replicas`` copies of the model, each cut into R / ``replicas`` shards (FSDP2; with
several copies HSDP). Independently of that, ``context_parallel`` neighbouring ranks share the
tokens of a pack, and the R / ``context_parallel`` groups of them get packs of their own.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from common.config.learning import COLLECTIVE_TIMEOUT_S
from common.errors import ConfigError, MachineError
from common.places import RENDEZVOUS
from learner.engine.context_parallel import ContextRanks, context_ranks

_COLLECTIVE_TIMEOUT = timedelta(seconds=COLLECTIVE_TIMEOUT_S)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """This process among those that train together.

    Attributes:
        index: from 0 to ``count``.
        count: R, all ranks.
        device: where this rank computes.
        mesh: over which the model is sharded: [R], or [replicas, R / replicas], of which the
            first dimension replicates.
        context: the ranks that share this rank's packs; None where it has them for itself.
    """

    index: int
    count: int
    device: torch.device
    mesh: DeviceMesh
    context: ContextRanks | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which owns trajectories, checkpoints' names and reports."""
        return self.index == 0

    @property
    def data_count(self) -> int:
        """Into how many parts the packs of a step are divided."""
        return self.count // (1 if self.context is None else self.context.count)

    @property
    def data_index(self) -> int:
        """Which of these parts is this rank's."""
        return self.index // (1 if self.context is None else self.context.count)


@contextmanager
def training_processes(
    init_method: str | None = None,
    *,
    replicas: int = 1,
    context_parallel: int = 1,
    first_gpu: int = 0,
) -> Iterator[Rank]:
    """Join the process group for as long as the context lasts: NCCL on CUDA, gloo on CPU.

    Rank and world size come from the environment as torchrun sets it; without it this is a
    world of one process, with the same code path.

    Args:
        init_method: rendezvous URL for tests; by default that of the variable ``RENDEZVOUS``, else
            the one that torchrun offers, or an in-process store for a single process.
        replicas: see ``arrange``.
        context_parallel: see ``arrange``.
        first_gpu: of the first rank on this machine; the others follow.

    Raises:
        ConfigError: see ``check_arrangement``.
        MachineError: the machine has fewer GPUs.
    """
    index, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    check_arrangement(count, replicas=replicas, context_parallel=context_parallel)
    device = _device_of(first_gpu + int(os.environ.get("LOCAL_RANK", "0")))
    alone = count == 1 and init_method is None
    if not alone and init_method is None:
        init_method = meeting_place(os.environ)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=init_method,
        store=HashStore() if alone else None,
        rank=index,
        world_size=count,
        timeout=_COLLECTIVE_TIMEOUT,
    )
    try:
        yield arrange(device, replicas=replicas, context_parallel=context_parallel)
    finally:
        dist.destroy_process_group()


def meeting_place(environment: Mapping[str, str]) -> str | None:
    """The URL of ``RENDEZVOUS``; after a restart by torchrun another, since its file is used up."""
    url = environment.get(RENDEZVOUS)
    life = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return url if url is None or life == "0" else f"{url}.{life}"


def arrange(device: torch.device, *, replicas: int = 1, context_parallel: int = 1) -> Rank:
    """Form the groups of ranks; every rank of an initialised world must call it alike.

    Args:
        device: where this rank computes.
        replicas: copies of the sharded model. Ranks with neighbouring indices share a copy.
        context_parallel: ranks that share the tokens of a pack; they have neighbouring indices.

    Raises:
        ConfigError: see ``check_arrangement``.
    """
    index, count = dist.get_rank(), dist.get_world_size()
    check_arrangement(count, replicas=replicas, context_parallel=context_parallel)
    shape: tuple[int, ...] = (count,) if replicas == 1 else (replicas, count // replicas)
    names = ("shard",) if replicas == 1 else ("replicate", "shard")
    context = None
    if context_parallel > 1:
        context = context_ranks(index, count, context_parallel, device.type)
    return Rank(
        index=index,
        count=count,
        device=device,
        mesh=init_device_mesh(device.type, shape, mesh_dim_names=names),
        context=context,
    )


def check_arrangement(ranks: int, *, replicas: int, context_parallel: int) -> None:
    """Check that ranks can be divided as configured.

    Raises:
        ConfigError: ``replicas`` times ``context_parallel`` does not divide ``ranks``.
    """
    if ranks % (replicas * context_parallel):
        raise ConfigError(
            f"learner.ranks is {ranks}, which is no multiple of learner.replicas ({replicas}) x "
            f"learner.context_parallel ({context_parallel}) = {replicas * context_parallel}; "
            "change one of the three"
        )


def _device_of(gpu: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    here = torch.cuda.device_count()
    if gpu >= here:
        raise MachineError(
            f"a learner rank is to compute on GPU {gpu}, but torch finds {here} of them, counted "
            "from 0; lower learner.ranks or learner.first_gpu"
        )
    device = torch.device("cuda", gpu)
    torch.cuda.set_device(device)
    return device
