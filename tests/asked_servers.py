"""Policy servers that may be asked from the beginning."""

from collections.abc import Sequence

from common.places import ServerPlace
from learner.coordination.membership import Membership


def asked(servers: Sequence[ServerPlace]) -> Membership:
    """Servers that have taken version 0 and passed their check."""
    membership = Membership(servers)
    with membership.roster() as roster:
        roster.published(0)
        for server in roster.servers:
            roster.updated(server.name, server.life, 0)
            roster.proved(server.name, server.life, 0)
    return membership
