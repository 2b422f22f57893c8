"""Doors and lines for tests: members with fresh keys, over Unix sockets unless said otherwise."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common.places import Address
from common.wire.keys import KeyPair
from common.wire.sockets import Door, Line, PeerLimits, Wire, new_key_pair
from learner.coordination.intake import ACTOR_LIMITS
from learner.weights.channel import WORKER_LIMITS

__all__ = ["ACTOR_LIMITS", "TCP", "WORKER_LIMITS", "Place", "a_door", "a_line", "a_place"]

TCP = Address(bind="127.0.0.1", host="127.0.0.1")


@dataclass
class Place:
    """Who listens, and the keys of those who may come."""

    wire: Wire
    door: Door
    keys: dict[str, KeyPair] = field(default_factory=dict)

    @contextmanager
    def line(self, member: str, *, identity: bytes) -> Iterator[Line]:
        """A line of that member, from a process of its own."""
        with a_line(self.door.address, self.keys[member], identity=identity) as line:
            yield line


@contextmanager
def a_line(address: Address, keys: KeyPair, *, identity: bytes) -> Iterator[Line]:
    """A line of whoever has ``keys``."""
    with Wire(keys) as wire:
        yield wire.connect(address, identity=identity)


@contextmanager
def a_place(
    members: Iterable[str] | Mapping[str, KeyPair] = ("a0",),
    *,
    limits: PeerLimits = ACTOR_LIMITS,
    tcp: bool = False,
) -> Iterator[Place]:
    """A door at which ``members`` may come in; whoever uses the door closes it."""
    keys = dict(members) if isinstance(members, Mapping) else new_keys(members)
    with tempfile.TemporaryDirectory() as folder, Wire(new_key_pair()) as wire:
        address = TCP if tcp else Address(bind=str(Path(folder) / "door"))
        known = {pair.public: name for name, pair in keys.items()}
        yield Place(wire, wire.listen("test", address, known, limits), keys)


@contextmanager
def a_door(
    members: Iterable[str] = ("a0",), *, limits: PeerLimits = ACTOR_LIMITS, tcp: bool = False
) -> Iterator[Door]:
    """The same where nobody is going to come."""
    with a_place(members, limits=limits, tcp=tcp) as place:
        yield place.door


def new_keys(members: Iterable[str]) -> dict[str, KeyPair]:
    """Fresh keys for each."""
    return {name: new_key_pair() for name in members}
