"""Where the processes of a run are, and how they reach and know each other: records without logic.

``launch.plan`` decides all of it before anything is started; ``launch.starters`` turns it into
processes, each of which reads the plan and finds its own place in it by name.
"""

from dataclasses import dataclass
from typing import Literal

Role = Literal["policy-server", "learner", "actor", "evaluation", "newcomer"]

LEARNER = "learner"
"""The name of the member that coordinates."""

EVALUATION = "evaluation"
"""The name of the member that asks policy servers questions without being an actor."""

JOIN = "join"
"""The name of whoever holds the credential of a run, and is no member yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a socket of ours listens, and the key that it proves itself with.

    Attributes:
        bind: the interface that its process binds, or the path of a Unix socket (from ``/``).
        host: what others reach the interface by; empty for a Unix socket.
        port: of TCP; 0 takes a free one, which the process tells once it has it.
        key: public key (CURVE, 40 characters of Z85); empty where no ZeroMQ listens.
    """

    bind: str
    host: str = ""
    port: int = 0
    key: str = ""

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket, which nobody reaches who cannot enter its folder."""
        return self.bind.startswith("/")

    def __str__(self) -> str:
        """For people and logs."""
        return self.bind if self.is_unix else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerPlace:
    """A policy server: the name it is known by, where it listens, and its first GPU.

    GPUs are counted among those that the run sees.
    """

    name: str
    address: Address
    first_gpu: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Who may connect to the sockets of the run: the public key, and what it stands for."""

    name: str
    role: Role
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessPlan:
    """One process of the run.

    Attributes:
        name: of the process and of its log.
        role: what it does.
        command: the argument list.
        environment: variables on top of the starter's own, as pairs.
        own_network: whether it has a network to itself, so that nobody else reaches a port of it.
    """

    name: str
    role: Role
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    own_network: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """Everything that the processes of one run have to agree on.

    Attributes:
        private: the folder of sockets and keys, which only the run's user can enter.
        coordinator: where actors find the coordinator.
        weights: where the workers of policy servers fetch weights.
        servers: the policy servers.
        members: the keys that coordinator and weight channel know.
        processes: what is to be started, in this order.
    """

    private: str
    coordinator: Address
    weights: Address
    servers: tuple[ServerPlace, ...]
    members: tuple[Member, ...]
    processes: tuple[ProcessPlan, ...] = ()


RENDEZVOUS = "LZERO_RENDEZVOUS"
"""The variable that tells ranks on one machine the URL of the file through which they meet."""

COMPILED = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that tells torch where it keeps, and finds again, what it compiled."""

COMPILED_HEADERS = "TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS"
"""The variable that tells torch whether it compiles its headers by themselves first."""

LOOPBACK = "127.0.0.1"
"""The interface that only this machine reaches."""

LOOPBACK_INTERFACE = "lo"
"""Its name, for those who ask for names."""
