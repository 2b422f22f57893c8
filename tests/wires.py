"""Doors and lines for tests: members with fresh keys, over Unix sockets unless said otherwise."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.places import Address
from common.wire.keys import KeyPair
from common.wire.sockets import Door, PeerLimits, Wire, new_key_pair
from learner.coordination.intake import ACTOR_LIMITS
from learner.weights.channel import WORKER_LIMITS

__all__ = ["ACTOR_LIMITS", "WORKER_LIMITS", "Place", "a_door", "a_place"]

TCP = Address(bind="127.0.0.1", host="127.0.0.1")


@dataclass
class Place:
    """Who listens, and the keys of those who may come."""

    wire: Wire
    door: Door
    keys: dict[str, KeyPair] = field(default_factory=dict)


@contextmanager
def a_place(
    members: Sequence[str] = ("a0",), *, limits: PeerLimits = ACTOR_LIMITS, tcp: bool = False
) -> Iterator[Place]:
    """A door at which ``members`` may come in; whoever uses the door closes it."""
    keys = {name: new_key_pair() for name in members}
    with tempfile.TemporaryDirectory() as folder, Wire(new_key_pair()) as wire:
        address = TCP if tcp else Address(bind=str(Path(folder) / "door"))
        known = {pair.public: name for name, pair in keys.items()}
        yield Place(wire, wire.listen("test", address, known, limits), keys)


@contextmanager
def a_door(members: Sequence[str] = ("a0",), **options: bool) -> Iterator[Door]:
    """The same where nobody is going to come."""
    with a_place(members, **options) as place:
        yield place.door
