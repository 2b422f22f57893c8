"""What the records of a run say of its progress, and of what it learned."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.chaos.turns import Progress
from launch.run.folder import RunFolder

_TAIL = 1 << 18
"""Bytes at the end of a file that are read: some trajectories at least."""


def progress_of(run: Path) -> Progress:
    """Read from ``metrics.jsonl`` and ``trajectories/``."""
    steps = [int(line["step"]) for line in _last_lines(run / "metrics.jsonl")]
    parts = sorted((run / "trajectories").glob("part-*.jsonl"))[-2:]
    begun = [float(line["started_at"]) for part in parts for line in _last_lines(part)]
    return Progress(step=max(steps, default=0), begun_at=max(begun, default=0.0))


def has_trained(run: Path, *, since: float) -> bool:
    """Whether a run that was begun ``since`` then, seconds since 1970, has done a step."""
    state = RunFolder(run).read_state()
    return state is not None and state.started_at >= since and progress_of(run).step > 0


def is_trained(run: Path) -> bool:
    """Whether the learner has left its totals: what comes after is evaluation."""
    return (run / "learner.json").exists()


def heldout_success(run: Path) -> float:
    """Mean over families of the held-out success after training, 0 to 1."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return fmean(family["after"] for family in summary["heldout"].values())


def restarts_of(run: Path) -> int:
    """Processes that the run itself has started again."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return len(summary["restarts"])


def _last_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines at the end of a file of JSON lines that is being written."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(0, size - _TAIL))
            data = opened.read()
    except OSError:
        return []
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [json.loads(line) for line in (lines[1:] if size > _TAIL else lines)]
