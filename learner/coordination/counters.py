"""What became of all training leases so far, and why some of them failed."""

import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_MOST_REASONS = 64
_ALERTS = frozenset(3 * 10**n for n in range(7))
"""Failures of one reason in a row that are told."""
_MAX_CHARACTERS = 500
_SHOWN_REASONS = 3


@dataclass(slots=True)
class Counters:
    """Training leases so far: ``started = trained + sum(dropped) + open``.

    Attributes:
        started: leases handed out.
        finished: trajectories that came back and could be used.
        trained: trajectories taken in batches.
        duplicates: trajectories of leases that had ended already, or were never their sender's.
        dropped: leases that ended without being trained, by reason.
        tokens_generated, cells_executed: of the trajectories that came back.
    """

    started: int = 0
    finished: int = 0
    trained: int = 0
    duplicates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    tokens_generated: int = 0
    cells_executed: int = 0

    def drop(self, reason: str, count: int = 1) -> None:
        """Count leases that ended untrained; the number of distinct reasons is bounded."""
        if not count:
            return
        known = reason in self.dropped or len(self.dropped) < _MOST_REASONS
        self.dropped[reason if known else "other"] += count


def reason_of_failure(failure: str) -> str:
    """The reason under which an infrastructure failure, ``Kind: text``, is counted."""
    kind = re.sub(r"[^\w ().-]", "", failure.partition(":")[0]).strip()
    return f"infrastructure:{kind or 'unknown'}"[:60]


class FailureLog:
    """What failed last under each reason, and how often in a row."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        """Nothing has failed; ``tell`` gets each alert of a reason once, so a bounded number."""
        self._tell = tell
        self._told: set[tuple[str, int]] = set()
        self._texts: dict[str, str] = {}
        self._in_row = 0
        self._last = ""

    def succeeded(self) -> None:
        """An episode ended as it should: the row is broken."""
        self._in_row = 0

    def failed(self, reason: str, text: str) -> None:
        """Remember a failure; three of one reason in a row are an alert, then thirty, and so on."""
        text = text[:_MAX_CHARACTERS]
        if len(self._texts) < _MOST_REASONS or reason in self._texts:
            self._texts[reason] = text
        self._in_row = self._in_row + 1 if reason == self._last else 1
        self._last = reason
        if self._in_row in _ALERTS:
            log.warning("%d episodes in a row failed reason=%s: %s", self._in_row, reason, text)
            self._tell_once(reason, text)

    def _tell_once(self, reason: str, text: str) -> None:
        key = (reason, self._in_row)
        if self._tell is None or key in self._told or reason not in self._texts:
            return
        self._told.add(key)
        self._tell(f"{self._in_row} episodes in a row failed ({reason}): {text}")

    def describe(self, dropped: Counter[str]) -> str:
        """The most frequent reasons with the last text of each; empty when nothing was dropped."""
        parts = []
        for reason, count in dropped.most_common(_SHOWN_REASONS):
            text = self._texts.get(reason, "")
            parts.append(f"{reason} {count}" + (f" (last: {text})" if text else ""))
        return ", ".join(parts)
