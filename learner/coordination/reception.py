"""Who may become a session of the coordinator, and what those who may not are told."""

import hmac
import logging

from common.codec import SCHEMA_VERSION
from common.session import Hello, Refused, Welcome
from learner.coordination.coordinator import Coordinator

log = logging.getLogger(__name__)


class Reception:
    """Greets actors; knows the key that only processes of the run can read."""

    def __init__(self, coordinator: Coordinator, run_key: str) -> None:
        """Sessions join ``coordinator``."""
        self._coordinator = coordinator
        self._run_key = run_key.encode()

    def greet(self, identity: bytes, hello: Hello, now: float) -> Welcome | Refused:
        """Answer a hello; the session is known when it is a welcome."""
        refusal = self._refusal(identity, hello)
        if refusal:
            log.warning("actor refused reason=%s", refusal)
            return Refused(reason=refusal)
        if self._coordinator.join(hello, now=now):
            log.info(
                "actor joined actor=%s credit=%d kernel=%s",
                hello.actor_id, hello.credit, hello.kernel_level,
            )  # fmt: skip
        leases = self._coordinator.held_by(hello.identity)
        return Welcome(schema_version=SCHEMA_VERSION, leases=leases)

    def _refusal(self, identity: bytes, hello: Hello) -> str:
        """Why an actor cannot be worked with; empty if it can. Tells nothing about the run."""
        if hello.schema_version != SCHEMA_VERSION:
            return (
                f"actor '{hello.actor_id}' speaks wire schema {hello.schema_version}, the "
                f"coordinator {SCHEMA_VERSION}; run the same version of l-zero on both sides"
            )
        if not hmac.compare_digest(hello.run_key.encode("utf-8", "replace"), self._run_key):
            return (
                f"actor '{hello.actor_id}' has not the key of this run; start it with the "
                "configuration in the run's folder"
            )
        if hello.identity.encode() != identity:
            return f"actor '{hello.actor_id}' speaks under a name that is not its own"
        return ""
