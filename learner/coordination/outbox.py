"""What the coordinator says, held back until everything that it rests on is safe. Pure.

One rule for every message, so also for those that only imply something: an ack, a welcome that
does not name a lease, a lease of a member that was handed out before. Messages leave in the order
in which they were said.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.wire.codec import Buffer


@dataclass(frozen=True, slots=True)
class Letter:
    """A message for a session; ``after`` is what the journal's ``durable`` must reach first."""

    after: int
    identity: bytes
    frames: Sequence[Buffer]


class Outbox:
    """Messages in the order in which they were said."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._letters: deque[Letter] = deque()

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._letters)

    def put(self, letter: Letter) -> None:
        """Say something; ``after`` never falls from one to the next."""
        self._letters.append(letter)

    def ready(self, durable: int) -> Iterator[Letter]:
        """Take out, in order, what may leave."""
        while self._letters and self._letters[0].after <= durable:
            yield self._letters.popleft()
