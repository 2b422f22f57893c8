"""``scores.json`` beside the checkpoints: the held-out score of each step that was asked.

Only which checkpoint is kept as the best depends on it, so a file that is lost or cannot be written
costs no more than that.
"""

import logging
from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from common.errors import InputError
from common.json_input import parse_json
from common.json_output import json_text
from common.whole_file import write_whole

log = logging.getLogger(__name__)


class HeldOutScores:
    """Scores by step, from 0 to 1, on disk as they come."""

    def __init__(self, folder: Path) -> None:
        """Go on from what ``folder``, that of all checkpoints, holds."""
        self._file = folder / "scores.json"
        self._scores = _read(self._file)

    @property
    def by_step(self) -> Mapping[int, float]:
        """All that are known."""
        return dict(self._scores)

    def add(self, step: int, score: float) -> None:
        """Note the score of the weights after ``step`` steps."""
        self._scores[step] = score
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, json_text({str(s): v for s, v in self._scores.items()}) + "\n")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file, error)


def _read(file: Path) -> dict[int, float]:
    try:
        table = parse_json(file.read_text(), str(file))
    except (OSError, InputError, UnicodeDecodeError):
        return {}
    if not isinstance(table, dict):
        return {}
    return {
        int(step): float(score)
        for step, score in table.items()
        if step.isdecimal() and isinstance(score, int | float) and isfinite(score)
    }
