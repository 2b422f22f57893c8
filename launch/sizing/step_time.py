"""How long an optimizer step takes, from operations and bytes and what hardware is assumed. Pure.

Nothing here was measured: a peak from a data sheet times an assumed share of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.config import Config
from launch.sizing.fit import shares_gpu
from launch.sizing.server import cached_per_token, compute_bytes, server_memory
from learner.engine.memory import GIB
from learner.engine.model_shape import shape_of
from learner.packs.balance import cost_of_model

_PASSES = {"none": 3.0, "selective": 4.0, "full": 4.0}
"""Forward passes that a forward and a backward pass take, with what is computed again. What
``selective`` saves of it is left out."""
_OFFLOADED_BYTES = 12
"""Per weight and pack: float32 weights to the GPU twice, gradients back once."""
_ADAM_BYTES = 28
"""Per weight and step: AdamW reads weight, gradient and two moments and writes three of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """A GPU and what surrounds it.

    Attributes:
        name: for people.
        memory: bytes a process can have.
        flops: dense bfloat16 operations per second, data sheet.
        bandwidth: bytes per second of its memory, data sheet.
        copies: bytes per second between CPU memory and GPU, assumed.
        host_bandwidth: bytes per second of CPU memory, assumed.
    """

    name: str
    memory: int
    flops: float
    bandwidth: float
    copies: float
    host_bandwidth: float


H100 = Hardware(
    name="H100 SXM, 80 GB",
    memory=79 * GIB,
    flops=989e12,
    bandwidth=3.35e12,
    copies=25e9,
    host_bandwidth=200e9,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What trajectories are taken to be, and what part of a peak is reached.

    Attributes:
        tokens: of a trajectory: prompts, actions and observations.
        sampled: of them in actions.
        flops_share: of the peak, in matrix products.
        bandwidth_share: of the peak, in decoding.
    """

    tokens: int = 8192
    sampled: int = 2048
    flops_share: float = 0.4
    bandwidth_share: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds per step.

    Attributes:
        learner: of the update.
        server: of sampling as many trajectories.
        shared: whether both take turns on a GPU; else they work at the same time.
    """

    learner: float
    server: float
    shared: bool

    @property
    def total(self) -> float:
        """Of a step, once the run is under way."""
        return self.learner + self.server if self.shared else max(self.learner, self.server)


def step_time(
    description: Mapping[str, Any], config: Config, hardware: Hardware, work: Workload
) -> StepTime:
    """Estimate a step of ``learner.groups`` times ``learner.group_size`` trajectories.

    Tools, kernels, evaluations, checkpoints and the way of the weights to the server are left out.

    Raises:
        KeyError: the description lacks a size.
    """
    return StepTime(
        learner=_learner_seconds(description, config, hardware, work),
        server=_server_seconds(description, config, hardware, work),
        shared=shares_gpu(config),
    )


def _trajectories(config: Config) -> int:
    return config.learner.groups * config.learner.group_size


def _learner_seconds(
    description: Mapping[str, Any], config: Config, hardware: Hardware, work: Workload
) -> float:
    learner = config.learner
    forward = cost_of_model(description).of_segment(work.tokens, work.sampled)
    passes = _PASSES[learner.activation_checkpointing] + bool(config.objective.kl_reference)
    flops = _trajectories(config) * passes * forward / learner.ranks
    seconds = flops / (hardware.flops * work.flops_share)
    if not learner.cpu_offload:
        return seconds
    weights = shape_of(description).parameters
    packs = -(-_trajectories(config) * work.tokens // (learner.pack_tokens * learner.ranks))
    copied = packs * _OFFLOADED_BYTES * weights / learner.ranks / hardware.copies
    return seconds + copied + _ADAM_BYTES * weights / hardware.host_bandwidth


def _server_seconds(
    description: Mapping[str, Any], config: Config, hardware: Hardware, work: Workload
) -> float:
    """What is read once costs operations; what is sampled costs reading weights and cache.

    Each of the servers has its part of the trajectories.
    """
    shape, parallel = shape_of(description), config.policy_server.tensor_parallel
    trajectories = _trajectories(config) / config.policy_server.count
    forward = cost_of_model(description).of_segment(work.tokens, 0)
    flops = trajectories * forward / parallel
    seconds = flops / (hardware.flops * work.flops_share)
    at_once = _sequences_at_once(description, config, hardware, work)
    compute = compute_bytes(config)
    cached = at_once * work.tokens / 2 * cached_per_token(shape, compute, parallel)
    read = compute * shape.parameters / parallel + cached
    rounds = trajectories * work.sampled / at_once
    return seconds + rounds * read / (hardware.bandwidth * work.bandwidth_share)


def _sequences_at_once(
    description: Mapping[str, Any], config: Config, hardware: Hardware, work: Workload
) -> int:
    """As many as are wanted of a server, allowed, and held by its KV cache at half their length."""
    server = server_memory(description, config, gpu=hardware.memory)
    held = server.contexts * config.model.max_context * 2 // work.tokens
    wanted = config.actors.processes * config.actors.episodes // config.policy_server.count
    return max(1, min(wanted, config.policy_server.max_sequences, held))
