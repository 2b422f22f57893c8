"""The processes around the learner and how they talk."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyServer:
    """The vLLM server; bound to loopback."""

    port: int = 0
    """TCP port; 0 takes a free one."""
    max_sequences: int = 128
    """Sequences generated at once."""
    threads: int = 1
    """OpenMP threads of the CPU build."""
    memory_gib: float = 1.0
    """KV cache of the CPU build, GiB; on a GPU ``gpu_memory_fraction`` decides."""
    gpu_memory_fraction: float = 0.85
    tensor_parallel: int = 1
    ready_timeout_s: float = 240.0
    """How long the server may take to load the model and answer."""
    request_timeout_s: float = 120.0
    """How long one generation request may take before it is retried."""
    request_attempts: int = 5
    """Tries per request, with exponential backoff, before the episode is dropped."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Actors:
    """The rollout processes."""

    processes: int = 1
    episodes: int = 96
    """Episodes in flight per process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transport:
    """Actor to coordinator: ZeroMQ on loopback."""

    port: int = 0
    """TCP port of the coordinator; 0 takes a free one."""
    resend_s: float = 10.0
    """An unacknowledged trajectory is sent again after this long."""
    heartbeat_s: float = 2.0
    silence_s: float = 60.0
    """An actor silent for this long loses its leases."""
    lease_grace_s: float = 60.0
    """Seconds beyond ``agent.episode_timeout_s`` after which an episode is given up and its task
    handed out again: for starting it, for its rewards and for sending what came of it."""
    buffer_mib: int = 256
    """Trajectories the learner keeps before it stops handing out tasks."""
