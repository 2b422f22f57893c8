"""The waits of this process: each place that waits says so, for as long as it does.

    with waiting(WaitKind.GENERATION, "s0"):
        answer = await line.generate(request)

In an asyncio task or a thread alike. To begin and to end a wait is one entry in a dictionary each,
without a lock: CPython's dictionaries take and give single keys, and copy themselves, in one step.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from common.waits.catalogue import CATALOGUE, Part, WaitKind
from common.waits.records import MOST_WAITS, Node, Waiting, cut

_SUBJECT: ContextVar[Node | None] = ContextVar("subject", default=None)


@contextmanager
def subject(part: Part, name: str) -> Iterator[None]:
    """Waits of this block are those of a part of the process; tasks begun in it inherit that."""
    token = _SUBJECT.set(Node(part, cut(name)))
    try:
        yield
    finally:
        _SUBJECT.reset(token)


class WaitRegister:
    """Who waits in this process now."""

    def __init__(self) -> None:
        """Nobody."""
        self._numbers = itertools.count()
        self._entries: dict[int, _Wait] = {}

    def waiting(
        self, kind: WaitKind, on: str = "", *, detail: str = "", who: Node | None = None
    ) -> "_Wait":
        """A context manager: inside of it somebody waits for ``on``, a name.

        ``who`` is the ``subject`` of where this is called, or the process itself.
        """
        return _Wait(self._entries, next(self._numbers), kind, on, detail, who or _SUBJECT.get())

    def waits(self) -> list[Waiting]:
        """All waits, the oldest first."""
        now = time.monotonic()
        entries = sorted(self._entries.copy().values(), key=lambda entry: entry.began)
        return [entry.described(now) for entry in entries]


class _Wait:
    __slots__ = ("_detail", "_entries", "_kind", "_number", "_on", "_who", "began")

    def __init__(
        self, entries: "dict[int, _Wait]", number: int, kind: WaitKind, on: str, detail: str,
        who: Node | None,
    ) -> None:  # fmt: skip
        self._entries, self._number = entries, number
        self._kind, self._on, self._detail, self._who = kind, on, detail, who
        self.began = 0.0

    def __enter__(self) -> None:
        self.began = time.monotonic()
        self._entries[self._number] = self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del self._entries[self._number]

    def described(self, now: float) -> Waiting:
        return Waiting(
            kind=self._kind,
            on=Node(CATALOGUE[self._kind].on, cut(self._on)),
            seconds=max(0.0, now - self.began),
            who=self._who,
            detail=cut(self._detail),
        )


WAITS = WaitRegister()
"""Of this process."""
waiting = WAITS.waiting


def chosen(waits: Sequence[Waiting], *, first: Sequence[str] = ()) -> tuple[Waiting, ...]:
    """At most ``MOST_WAITS``: first up to half of subjects in ``first``, then the oldest."""
    rank = {name: number for number, name in enumerate(first)}
    named = [wait for wait in waits if wait.who is not None and wait.who.name in rank]
    named.sort(key=lambda wait: rank[wait.who.name if wait.who else ""])
    preferred = named[: MOST_WAITS // 2]
    oldest = sorted(waits, key=lambda wait: -wait.seconds)
    rest = [wait for wait in oldest if not any(wait is one for one in preferred)]
    return (*preferred, *rest[: MOST_WAITS - len(preferred)])


def counted(waits: Sequence[Waiting]) -> dict[str, int]:
    """How many there are of each kind."""
    return dict(Counter(wait.kind.value for wait in waits))
