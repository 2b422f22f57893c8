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
    return max(_servers_gpus(config), learner.first_gpu + learner.ranks)


def shares_gpu(config: Config) -> bool:
    """Whether a GPU has both a part of a server and a rank of the learner."""
    return config.learner.first_gpu < _servers_gpus(config)


def _servers_gpus(config: Config) -> int:
    """GPUs from 0 on that the policy servers have."""
    return config.policy_server.count * config.policy_server.tensor_parallel


def _check_gpus(config: Config, there: int) -> None:
    needed = gpus_needed(config)
    if needed > there:
        raise MachineError(
            f"the run needs {needed} GPUs, but this machine has {there}: the policy servers "
            f"(policy_server.count = {config.policy_server.count}) take "
            f"policy_server.tensor_parallel = {config.policy_server.tensor_parallel} each from "
            f"GPU 0 on, the learner learner.ranks = {config.learner.ranks} from "
            f"learner.first_gpu = {config.learner.first_gpu} on; lower some of the four, or look "
            "at CUDA_VISIBLE_DEVICES"
        )


def _check_server(server: ServerMemory, config: Config, machine: Machine, gpu: int | None) -> str:
    """A warning, or empty."""
    keys = config.policy_server
    who, each = "the policy server needs", ""
    needed, there = server.least, int(keys.gpu_memory_fraction * (gpu or 0))
    what = f"policy_server.gpu_memory_fraction = {keys.gpu_memory_fraction:g} of each GPU is"
    helps = "a larger policy_server.gpu_memory_fraction or policy_server.tensor_parallel"
    if gpu is None:
        needed, there = keys.count * (server.weights + server.working + server.cache), machine.host
        what, helps = "the CPU memory that is free is", "a smaller policy_server.memory_gib"
    if gpu is None and keys.count > 1:
        who, each = f"policy_server.count = {keys.count} policy servers need", ", each of them"
        helps += " or policy_server.count"
    if needed <= NEARLY * there:
        return ""
    text = (
        f"{who} at least about {needed / GIB:.2f} GiB (weights {server.weights / GIB:.2f}, working "
        f"memory {server.working / GIB:.2f}, a context of {config.model.max_context} tokens "
        f"{server.per_context / GIB:.2f}{each}), and {what} "
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
        of_each = server.weights + server.working + server.cache
        taken = config.policy_server.count * of_each
        left = max(0, machine.host - taken) // ranks
        return FreeMemory(device=None, host=max(0, left - PROCESS_BYTES))
    share = 1 - config.policy_server.gpu_memory_fraction if shares_gpu(config) else 1.0
    return FreeMemory(device=int(share * gpu), host=machine.host // ranks)


def _beside(config: Config, gpu: int | None) -> str:
    server = "policy server" if config.policy_server.count == 1 else "policy servers"
    return f" beside the {server}" if gpu is None or shares_gpu(config) else ""
