"""Whether a run fits its machine, told before anything is started. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.config import Config
from common.errors import MachineError
from launch.sizing.server import PROCESS_BYTES, ServerMemory, server_memory
from learner.engine.memory import GIB, MOST_OVER, NEARLY, FreeMemory, check_memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a run may use.

    Attributes:
        gpus: bytes of each GPU; none where everything computes on the CPU.
        host: bytes of CPU memory that are free.
    """

    gpus: tuple[int, ...]
    host: int


def check_room(description: Mapping[str, Any], config: Config, machine: Machine) -> list[str]:
    """Refuse a run that cannot fit: estimated at more than ``MOST_OVER`` times what there is.

    Args:
        description: config.json of the model.
        config: of the run.
        machine: that all of its processes start on.

    Returns:
        Warnings, where it is close.

    Raises:
        MachineError: there are too few GPUs or too little memory; says what for, how much is
            lacking, and what helps.
        KeyError: the description lacks a size.
    """
    gpu = min(machine.gpus) if machine.gpus else None
    if gpu is not None:
        _check_gpus(config, len(machine.gpus))
    server = server_memory(description, config, gpu=gpu)
    warnings = [_check_server(server, config, machine, gpu)]
    free = _left_for_learner(server, config, machine, gpu)
    warnings.append(check_memory(description, config, free, beside=_beside(config, gpu)))
    return [warning for warning in warnings if warning]


def gpus_needed(config: Config) -> int:
    """GPUs from 0 on that server and learner have between them."""
    learner = config.learner
    return max(config.policy_server.tensor_parallel, learner.first_gpu + learner.ranks)


def shares_gpu(config: Config) -> bool:
    """Whether a GPU has both a part of the server and a rank of the learner."""
    return config.learner.first_gpu < config.policy_server.tensor_parallel


def _check_gpus(config: Config, there: int) -> None:
    needed = gpus_needed(config)
    if needed > there:
        raise MachineError(
            f"the run needs {needed} GPUs, but this machine has {there}: the policy server takes "
            f"policy_server.tensor_parallel = {config.policy_server.tensor_parallel} from GPU 0 "
            f"on, the learner learner.ranks = {config.learner.ranks} from learner.first_gpu = "
            f"{config.learner.first_gpu} on; lower some of the three, or look at "
            "CUDA_VISIBLE_DEVICES"
        )


def _check_server(server: ServerMemory, config: Config, machine: Machine, gpu: int | None) -> str:
    """A warning, or empty."""
    keys = config.policy_server
    needed, there = server.least, int(keys.gpu_memory_fraction * (gpu or 0))
    what = f"policy_server.gpu_memory_fraction = {keys.gpu_memory_fraction:g} of each GPU is"
    helps = "a larger policy_server.gpu_memory_fraction or policy_server.tensor_parallel"
    if gpu is None:
        needed, there = server.weights + server.working + server.cache, machine.host
        what, helps = "the CPU memory that is free is", "a smaller policy_server.memory_gib"
    if needed <= NEARLY * there:
        return ""
    text = (
        f"the policy server needs at least about {needed / GIB:.2f} GiB (weights "
        f"{server.weights / GIB:.2f}, working memory {server.working / GIB:.2f}, a context of "
        f"{config.model.max_context} tokens {server.per_context / GIB:.2f}), and {what} "
        f"{there / GIB:.2f} GiB; what helps: {helps}, a smaller model.max_context, "
        "policy_server.max_sequences or model.path"
    )
    if needed > MOST_OVER * there:
        raise MachineError(text)
    return f"{text}. It is tried all the same: the estimate is usually too high"


def _left_for_learner(
    server: ServerMemory, config: Config, machine: Machine, gpu: int | None
) -> FreeMemory:
    ranks = config.learner.ranks
    if gpu is None:
        taken = server.weights + server.working + server.cache
        left = max(0, machine.host - taken) // ranks
        return FreeMemory(device=None, host=max(0, left - PROCESS_BYTES))
    share = 1 - config.policy_server.gpu_memory_fraction if shares_gpu(config) else 1.0
    return FreeMemory(device=int(share * gpu), host=machine.host // ranks)


def _beside(config: Config, gpu: int | None) -> str:
    return " beside the policy server" if gpu is None or shares_gpu(config) else ""
