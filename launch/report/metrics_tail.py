"""Reads ``metrics.jsonl``, and other files of lines, while the learner writes them."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from common.json_output import as_number
from common.telemetry.step_record import StepRecord


class LinesTail:
    """Gives each line once; one that is still being written waits for the next look."""

    def __init__(self, path: Path) -> None:
        """Begin at the start of a file that may not exist yet."""
        self._path = path
        self._offset = 0
        self._inode = 0

    def read(self) -> list[str]:
        """Lines that were added since the last look, without blank ones."""
        if not self._path.is_file():
            return []
        self._start_over_when_replaced()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            block = file.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [line for line in whole.decode().splitlines() if line.strip()]

    def _start_over_when_replaced(self) -> None:
        status = self._path.stat()
        if status.st_ino != self._inode or status.st_size < self._offset:
            self._inode, self._offset = status.st_ino, 0


def read_metrics(path: Path) -> list[StepRecord]:
    """All records of a finished file, one per step.

    A resumed run repeats the steps after its checkpoint; the later record of a step counts.
    """
    by_step = {record.step: record for record in map(parse_record, LinesTail(path).read())}
    return [by_step[step] for step in sorted(by_step)]


def parse_record(line: str) -> StepRecord:
    """One line; fields that this version does not know are left out."""
    values = json.loads(line)
    known = [field for field in dataclasses.fields(StepRecord) if field.name in values]
    return StepRecord(**{field.name: _typed(values[field.name]) for field in known})


def _typed(value: Any) -> Any:
    """A value with the numbers that JSON has no form for; no text of a record is such a name."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    return as_number(value) if isinstance(value, str) else value
