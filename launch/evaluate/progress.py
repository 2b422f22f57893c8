"""How far an evaluation is, read from the episodes that have come in."""

import json
import time
from pathlib import Path

from common.wire.records import Outcome
from launch.report.metrics_tail import LinesTail
from launch.report.training_view import describe_duration


class AskedSoFar:
    """Counts episodes as they are appended; a question that is asked again counts once."""

    def __init__(self, episodes: Path, total: int) -> None:
        """Count those of earlier attempts first; ``total`` is how many there will be."""
        self._tail, self._total = LinesTail(episodes), total
        self._right: dict[tuple[str, str, int], float] = {}
        self._failed: set[tuple[str, str, int]] = set()
        self._look()
        self._before = len(self._right)
        self._started = time.monotonic()

    @property
    def done(self) -> int:
        """Questions with an episode that counts."""
        return len(self._right)

    def line(self) -> str:
        """``37 of 200 asked, right 24.3 %, 1 failed, 2.1/s, 1 min 18 s left``."""
        self._look()
        parts = [f"{self.done} of {self._total} asked"]
        if self._right:
            parts.append(f"right {sum(self._right.values()) / self.done:.1%}")
        if self._failed:
            parts.append(f"{len(self._failed)} failed")
        new, left = self.done - self._before, self._total - self.done
        if new and left:
            rate = new / max(time.monotonic() - self._started, 1e-3)
            parts += [f"{rate:.1f}/s", f"{describe_duration(left / rate)} left"]
        return ", ".join(parts)

    def _look(self) -> None:
        for line in self._tail.read():
            record = json.loads(line)
            key = (record["question_set"], record["task"]["task_id"], record["sample"])
            if record["outcome"] == Outcome.INFRASTRUCTURE:
                self._failed.add(key)
            else:
                self._failed.discard(key)
                self._right[key] = record["scores"].get("exact_match", 0.0)
