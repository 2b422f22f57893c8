"""A message as it came to a door, with the name of the member who sent it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import ProtocolError
from common.wire.parts import join


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message as it came.

    Attributes:
        identity: of the connection, to answer; its sender chose it.
        member: the name that the sender's key stands for.
        frames: of the message; none if it cannot be put together.
    """

    identity: bytes
    member: str
    frames: Sequence[memoryview]


def read_parcel(parts: Sequence[Any], longest: int) -> Parcel:
    """What ZeroMQ received; without frames where they hold more than ``longest`` bytes."""
    first, *rest = parts
    try:
        frames = join([frame.buffer for frame in rest], limit=longest)
    except ProtocolError:
        frames = []
    return Parcel(bytes(first.buffer), str(first.get("User-Id")), frames)
