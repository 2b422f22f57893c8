"""The processes around the learner and how they talk."""

from dataclasses import dataclass
from typing import Annotated

from common.config.checks import require
from common.config.ranges import DAY_S, FIXED, Range, Section, short

MAX_CREDIT = 8192
"""Episodes that one actor may have in flight, and leases that it may ask for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyServer(Section):
    """The vLLM servers; each listens on a Unix socket that only the run's user reaches."""

    count: Annotated[int, Range("servers", least=1, most=256)] = 1
    """Servers on this machine; the other keys are about each of them. On GPUs they follow one
    another from GPU 0 on, on a CPU they share out its cores."""
    max_sequences: Annotated[int, Range("sequences", least=1, most=1 << 20)] = 128
    """Sequences generated at once."""
    threads: Annotated[int, Range("threads", least=0, most=4096)] = 0
    """OpenMP threads of the CPU build; 0 for what suits the model and the cores."""
    memory_gib: Annotated[float, Range("GiB", least=0.01, most=1 << 20)] = 1.0
    """KV cache of the CPU build; on a GPU ``gpu_memory_fraction`` decides."""
    gpu_memory_fraction: Annotated[float, Range("share", least=0.01, most=1)] = 0.85
    """Part of a GPU's memory that the server takes, weights and KV cache together."""
    tensor_parallel: Annotated[int, Range("GPUs", least=1, most=4096)] = 1
    """GPUs over which the model is split."""
    ready_timeout_s: Annotated[float, Range("s", least=1, most=7 * DAY_S), FIXED] = 1800.0
    """How long the server may take to load the model and answer; one that dies is seen at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Actors(Section):
    """The rollout processes."""

    processes: Annotated[int, Range("processes", least=0, most=4096)] = 1
    """Rollout processes that the run starts itself; with 0 it waits for those that join."""
    episodes: Annotated[int, Range("episodes", least=1, most=MAX_CREDIT)] = 96
    """Episodes in flight per process; fewer while policy servers lack room for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transport(Section):
    """Actor to coordinator: ZeroMQ, encrypted, between members with keys of the run."""

    listen: str = ""
    """Where the coordinator listens: empty for a Unix socket that only the run's user reaches, or
    ``ADDRESS:PORT`` of an interface, port 0 for any free one."""
    silence_s: Annotated[float, Range("s", least=1, most=DAY_S)] = 60.0
    """An actor silent for this long loses its leases."""
    lease_grace_s: Annotated[float, Range("s", least=1, most=DAY_S)] = 60.0
    """Time beyond ``agent.episode_timeout_s`` after which an episode is given up and its task
    handed out again: for starting it, for its rewards and for sending what came of it."""
    buffer_mib: Annotated[int, Range("MiB", least=1, most=1 << 30), FIXED] = 256
    """Trajectories the learner keeps before it stops handing out tasks."""

    @property
    def heartbeat_s(self) -> float:
        """Time between two signs of life of an actor, and between two answers."""
        return self.silence_s / 30

    @property
    def resend_s(self) -> float:
        """An unacknowledged trajectory is sent again after this long."""
        return self.silence_s / 6

    @property
    def patience_s(self) -> float:
        """How long an actor that hears nothing waits for the learner to come back."""
        return self.silence_s * 60

    def check(self) -> None:
        """It listens nowhere else than at an address with a port."""
        host, _, port = self.listen.rpartition(":")
        is_address = bool(host) and host[0] not in "/*"
        require(
            not self.listen or (is_address and port.isdecimal() and int(port) <= 65535),
            f"transport.listen must be empty or ADDRESS:PORT, got {short(self.listen)}",
        )
