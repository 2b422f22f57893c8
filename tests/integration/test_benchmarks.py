"""The benchmark of the kernels measures every figure that it promises, against real peers."""

import json
import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from benchmarks.bench_kernels import QUICK, run
from benchmarks.report import Report

pytestmark = pytest.mark.sandbox
FIGURES = {
    *("pool_hit_ms_p50", "pool_miss_ms_p50", "kernels_per_s", "cells_per_s_64", "pss_mib"),
    *("tool_call_us_p50", "interrupt_ms_p50", "leftovers_after_sigkill"),
}
RATIOS = {"cells_per_s_vs_stock", "start_cpu_vs_stock", "pss_vs_stock", "start_vs_l0_style"}
UNTOLD_WITHOUT_CONTROL_GROUPS = {"start_cpu_vs_stock"}
TINY = replace(
    QUICK,
    rounds=1,
    lives=2,
    stock_kernels=2,
    cell_rounds=1,
    cell_seconds=0.2,
    hits=3,
    tool_calls=50,
    interrupts=2,
    actor_kernels=4,
    kills=1,
)


@pytest.fixture(scope="module")
def report() -> Report:
    return run(TINY, lambda title: None)


def test_every_promised_figure_is_there_and_finite(report: Report) -> None:
    assert set(report.figures) >= FIGURES
    assert all(math.isfinite(report.figures[name]) for name in FIGURES)
    assert all(report.figures[name] > 0 for name in FIGURES - {"leftovers_after_sigkill"})


def test_every_promised_ratio_is_there_and_finite(report: Report) -> None:
    untold = {name for name in RATIOS if report.ratios[name] is None}

    assert untold <= UNTOLD_WITHOUT_CONTROL_GROUPS
    assert all(math.isfinite(report.ratios[name]) for name in RATIOS - untold)
    assert all(report.ratios[name] > 0 for name in RATIOS - untold)


def test_the_file_holds_what_the_table_shows(report: Report, tmp_path) -> None:
    console = Console(file=StringIO(), width=120)

    report.write(tmp_path / "report.json")
    report.show(console)

    written = json.loads((tmp_path / "report.json").read_text())
    assert set(written) == {"name", "machine", "commit", "settings", "figures", "ratios"}
    assert written["figures"] == dict(report.figures)
    assert all(name in console.file.getvalue() for name in written["figures"])
