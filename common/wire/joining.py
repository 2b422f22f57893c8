"""What somebody who is no member yet says to the coordinator, and how a policy server takes part.

Who holds the credential of a run (``common.join_file``) speaks under the name ``JOIN`` and may say
``Join`` and ``SendAway``. It is admitted with a key of its own, and under that it is a member like
those that the run was planned with: an actor says hello (``common.wire.session``), a policy server
says ``Serving``, again and again, until it leaves or is told ``Drain``.
"""

from dataclasses import dataclass

from common.places import Address
from common.wire.keys import CHARACTERS

JOINING_ROLES = ("actor", "policy-server")


@dataclass(frozen=True, kw_only=True, slots=True)
class Join:
    """I want to take part (newcomer to coordinator).

    Attributes:
        role: one of ``JOINING_ROLES``.
        key: public, by which I shall be known; said again with the same key it is the same wish.
    """

    role: str
    key: str
    schema_version: int

    def __post_init__(self) -> None:
        """Reject what nobody of ours would say."""
        if self.role not in JOINING_ROLES:
            raise ValueError(f"role must be one of {JOINING_ROLES}, got {self.role[:40]!r}")
        if len(self.key) != CHARACTERS or not self.key.isascii():
            raise ValueError(f"key must be {CHARACTERS} characters of Z85, got {self.key[:60]!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """You are a member from now on (coordinator to newcomer).

    Attributes:
        name: that the key stands for.
        config: the run's resolved configuration, as JSON.
        weights: where a policy server's workers fetch weights.
    """

    name: str
    config: str
    weights: Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """I can be asked here (policy server to coordinator)."""

    address: Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """How you stand, and why you are not asked if you are not (coordinator to policy server)."""

    standing: str
    cause: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SendAway:
    """That member shall leave (whoever holds the credential to coordinator)."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SentAway:
    """It leaves, in words (coordinator to whoever asked)."""

    text: str


JoinMessage = Join | Admitted | Serving | Listed | SendAway | SentAway
"""What travels between the coordinator and those that the run was not planned with."""
