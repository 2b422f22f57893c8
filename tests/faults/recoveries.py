"""How long each role took to work again, over many schedules, as a benchmark's report."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.report import Report, make_report
from tests.faults.rig import Played

PLACE = "LZERO_FAULTS_JSON"
"""The variable that says where the report is to be written."""


def report_of(played: Sequence[Played]) -> Report:
    """Median and longest of each role and kind, and of how many faults that were alone."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for one in played:
        for recovery in one.recoveries:
            seconds[f"{recovery.role}_{recovery.kind}"].append(recovery.seconds)
    figures: dict[str, float | None] = {}
    for name, some in sorted(seconds.items()):
        figures |= {f"{name}_s_p50": median(some), f"{name}_s_max": max(some)}
        figures[f"{name}_count"] = len(some)
    settings = {"schedules": len(played), "skipped": sum(len(one.skipped) for one in played)}
    return make_report("fault_suite", settings=settings, figures=figures, ratios={})


def write_report(played: Sequence[Played]) -> None:
    """Where the variable says, if it says so."""
    if place := os.environ.get(PLACE):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        report_of(played).write(Path(place))
