"""What an actor says of its waits with each heartbeat. Pure but for the register that it reads."""

from collections.abc import Mapping, Sequence

from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.records import Node, Waiting, WaitReport, cut
from common.waits.register import WaitRegister, chosen, counted

_OF_ACTORS = {Part.ACTOR, Part.LEASE, Part.POOL, Part.KERNEL}
_COORDINATOR = Node(Part.COORDINATOR)


def actor_report(
    register: WaitRegister,
    *,
    held: Sequence[str],
    unacknowledged: Mapping[str, float],
    own: Mapping[WaitKind, float],
    lag_s: float,
) -> WaitReport:
    """The report of an actor.

    Args:
        register: of its process.
        held: ids of the leases that it holds, the oldest first: their waits come first.
        unacknowledged: seconds since each trajectory was sent first, by its lease.
        own: seconds of what the actor itself waits for from the coordinator.
        lag_s: longest standstill of its event loop.
    """
    waits = [
        *(wait for wait in register.waits() if _OF_ACTORS & {*CATALOGUE[wait.kind].who}),
        *(_for_the_coordinator(WaitKind.ACK, s, lease) for lease, s in unacknowledged.items()),
        *(_for_the_coordinator(kind, seconds) for kind, seconds in own.items()),
    ]
    return WaitReport(
        waits=chosen(waits, first=held),
        counts=counted(waits),
        lag_s=lag_s,
        queues={"leases": len(held), "unacknowledged": len(unacknowledged)},
    )


def _for_the_coordinator(kind: WaitKind, seconds: float, lease: str = "") -> Waiting:
    who = Node(Part.LEASE, cut(lease)) if lease else None
    return Waiting(kind=kind, on=_COORDINATOR, seconds=max(0.0, seconds), who=who)
