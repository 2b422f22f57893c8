"""The trajectory store of a run: append-only JSON lines in parts, limited in size.

``trajectories/part-00000.jsonl`` and so on, one trajectory per line as text (no token ids); see
docs/trajectories.md for the fields. When the limit is reached the oldest part is removed. Making a
line takes longer than taking the trajectory in: a run leaves it to another process
(``learner.coordination.store_process``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TextIO

from common.episode_record import record_line, trajectory_record
from common.wire.codec import Buffer
from common.wire.records import Trajectory


class Store(Protocol):
    """Something that keeps trajectories for people."""

    def append(self, trajectory: Trajectory, frames: Sequence[Buffer] = ()) -> None:
        """Keep one, which came in ``frames``; OSError or ValueError where it cannot."""
        ...

    def close(self) -> None:
        """Return when all of them are in their files."""
        ...


class TrajectoryStore:
    """Appends trajectories to the newest part; never rewrites one."""

    def __init__(self, folder: Path, *, limit_bytes: int, parts: int = 16) -> None:
        """Continue after the parts that are there. A part holds ``limit_bytes / parts``."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._part_bytes = max(1, limit_bytes // parts)
        self._parts = parts
        numbers = [int(path.stem.removeprefix("part-")) for path in self._existing()]
        self._file = self._open(max(numbers, default=-1) + 1)

    def append(self, trajectory: Trajectory, frames: Sequence[Buffer] = ()) -> None:
        """Write one line; starts the next part when this one is full."""
        self._file.write(record_line(trajectory_record(trajectory)))
        if self._file.tell() >= self._part_bytes:
            self._file.close()
            self._file = self._open(self._number + 1)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _existing(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.jsonl"))

    def _open(self, number: int) -> TextIO:
        self._number = number
        for old in self._existing()[: -(self._parts - 1)]:
            old.unlink()
        file = self._folder / f"part-{number:05d}.jsonl"
        return file.open("a", buffering=1, encoding="utf-8")  # a killed process loses no line
