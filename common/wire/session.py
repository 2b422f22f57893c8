"""What a session of an actor and the coordinator say to each other, beside tasks and trajectories.

A *session* is the life of one actor process as the coordinator knows it: it begins with ``Hello``
and ends with ``Leave``, silence or the end of the run. Leases belong to sessions, and only the
session that holds a lease can settle it. A session outlives the coordinator: one that begins again
is told by the next hello what the session holds, and gives it back what was its own before.
"""

from dataclasses import dataclass, field

from common.config.processes import MAX_CREDIT
from common.places import Address
from common.telemetry.process_totals import ActorTotals
from common.waits.records import WaitReport
from common.wire.records import TaskLease, Trajectory

MAX_NAME_CHARACTERS = 200
"""Of an actor's name and session together; ZeroMQ bounds an identity at 255 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """First message of a session, again whenever the coordinator wants it (actor to coordinator).

    Attributes:
        actor_id: what people call the actor; need not be unique.
        session: drawn at random by the actor process; nobody else knows it.
        credit: how many leases it can hold, at most ``MAX_CREDIT``.
        leases: ids of all that it holds: what it runs, and what was not acknowledged.
    """

    actor_id: str
    session: str
    schema_version: int
    credit: int
    kernel_level: str
    leases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject a hello that nobody of ours would say."""
        if not 0 <= self.credit <= MAX_CREDIT:
            raise ValueError(f"credit must be from 0 to {MAX_CREDIT}, got {self.credit}")
        if len(self.leases) > MAX_CREDIT:
            raise ValueError(f"expected at most {MAX_CREDIT} leases, got {len(self.leases)}")
        if not self.session or len(self.session) + len(self.actor_id) > MAX_NAME_CHARACTERS:
            raise ValueError(
                f"actor_id and session must have at most {MAX_NAME_CHARACTERS} characters "
                f"together and session at least one, got {self.actor_id[:40]!r}"
            )

    @property
    def identity(self) -> str:
        """The ZeroMQ identity that the session speaks under."""
        return f"{self.actor_id}#{self.session}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    """The coordinator knows this session (coordinator to actor).

    ``leases`` are all that the session holds as the coordinator sees it; anything else that the
    actor runs or wants to deliver has been decided without it.
    """

    schema_version: int
    leases: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class HelloWanted:
    """The coordinator does not know this session; say hello (coordinator to actor)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """The coordinator will never work with this actor, and why (coordinator to actor)."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """One message could not be used, and why; the session goes on (coordinator to actor)."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Heartbeat:
    """The session is alive and holds these leases (actor to coordinator).

    ``seen`` is the highest serial that reached it, in a lease or in a ``HeartbeatAck``: what was
    sent up to there and is not named is lost. ``rotation`` is the number of the newest rotation
    that reached it, 0 for none. ``report`` is what its process waits for.
    """

    seen: int
    leases: tuple[str, ...]
    rotation: int = 0
    report: WaitReport = field(default_factory=WaitReport)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeartbeatAck:
    """The coordinator is alive and has sent leases up to serial ``sent`` (coordinator to actor)."""

    sent: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A policy server that may be asked, where, and the lowest version that it answers with."""

    server: str
    address: Address
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """Which policy servers may be asked from now on (coordinator to actor).

    Attributes:
        number: of this rotation; one with a higher number replaces it.
        asked: who may be asked; nobody knows another way to a server.
        lost: names of the dead: what was asked there gets no answer and is to be asked elsewhere.
    """

    number: int
    asked: tuple[Asked, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ack:
    """The fate of a lease is decided, trained or dropped (coordinator to actor)."""

    trajectory_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drain:
    """No more leases will come; wait for the last acks, exit (coordinator to actor).

    What can be finished within ``finish_s`` seconds is wanted still, the rest is not.
    """

    reason: str
    finish_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Leave:
    """The session ends; what it holds is for others (actor to coordinator).

    ``totals`` are of the process that ends; a policy server that leaves has none.
    """

    reason: str
    totals: ActorTotals | None = None


Message = (
    Hello | Welcome | HelloWanted | Refused | Rejected | Heartbeat | HeartbeatAck
    | Rotation | Ack | Drain | Leave | TaskLease | Trajectory
)  # fmt: skip
"""What travels between an actor and the coordinator."""
