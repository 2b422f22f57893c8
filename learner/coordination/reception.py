"""Who may become a session of the coordinator, and what those who may not are told."""

import logging

from common.wire.codec import SCHEMA_VERSION
from common.wire.session import Hello, Welcome
from learner.coordination.coordinator import Coordinator

log = logging.getLogger(__name__)


def greet(coordinator: Coordinator, hello: Hello, now: float) -> Welcome:
    """Make a session known to the coordinator; ``refusal_of`` had nothing against it."""
    if coordinator.join(hello, now=now):
        log.info(
            "actor joined actor=%s credit=%d kernel=%s",
            hello.actor_id, hello.credit, hello.kernel_level,
        )  # fmt: skip
    return Welcome(schema_version=SCHEMA_VERSION, leases=coordinator.held_by(hello.identity))


def refusal_of(identity: bytes, hello: Hello) -> str:
    """Why an actor cannot be worked with; empty if it can."""
    if hello.schema_version != SCHEMA_VERSION:
        return (
            f"actor '{hello.actor_id}' speaks wire schema {hello.schema_version}, the "
            f"coordinator {SCHEMA_VERSION}; run the same version of l-zero on both sides"
        )
    if hello.identity.encode() != identity:
        return f"actor '{hello.actor_id}' speaks under a name that is not its own"
    return ""
