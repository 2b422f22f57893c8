"""The benchmark of asynchronous training runs on real parts, and reports what it promises."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.asynchrony.sweep import QUICK, Cell
from benchmarks.asynchrony.training import train
from benchmarks.asynchrony.virtual import train_virtually
from benchmarks.bench_async import report_of, table_of
from benchmarks.report import REPOSITORY

TINY = replace(
    QUICK, batch_over_slots=(2.0,), slots=4, group_size=2, median_s=0.02, warm_medians=2.0,
    counted_medians=10.0, least_batches=3, synchronous_trajectories=16,
)  # fmt: skip
RATIOS = {"async_vs_sync", "share_of_ceiling"}
FIGURES = {"learner_idle_async", "learner_idle_sync"}


@pytest.fixture(scope="module")
def cell() -> Cell:
    return Cell(
        train_over_generation=1.0,
        batch_over_slots=2.0,
        ahead=train(TINY.asynchronous(1.0, 2.0)),
        synchronous=train(TINY.synchronous(1.0, 2.0)),
        virtual=train_virtually(TINY.asynchronous(1.0, 2.0)),
    )


def test_synchronous_training_is_never_faster_than_its_closed_form(cell: Cell) -> None:
    """How much slower it is depends on the machine; that nothing more costs time is seen under
    virtual time."""
    assert cell.sync_vs_closed_form >= 0.98
    assert (cell.synchronous.staleness_max, cell.synchronous.dropped) == (0, 0)
    assert cell.synchronous.batches == 3


def test_asynchronous_training_runs_ahead_below_its_ceiling(cell: Cell) -> None:
    assert cell.ahead.staleness > 0
    assert cell.ahead.dropped == 0
    assert 0 < cell.ahead.share_of_ceiling < 2
    for side in (cell.ahead, cell.synchronous):
        assert 0 <= side.learner_idle < 1
        assert 0 <= side.slots_idle < 1


def test_the_report_has_what_is_promised(cell: Cell, tmp_path: Path) -> None:
    console = Console(file=StringIO(), width=160)
    report = report_of(TINY, [cell], {2.0: cell.ahead}, {})

    report.write(tmp_path / "report.json")
    console.print(table_of([cell]))

    written = json.loads((tmp_path / "report.json").read_text())
    assert set(written["ratios"]) == RATIOS
    assert set(written["figures"]) >= FIGURES | {"scale_2/share_of_ceiling"}
    assert all(math.isfinite(value) for value in written["figures"].values())
    assert "share of ceiling" in console.file.getvalue()


@pytest.mark.nightly
@pytest.mark.slow
def test_the_short_form_writes_its_report(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.bench_async", "--quick", "--json", str(path)]

    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=500)

    written = json.loads(path.read_text())
    assert written["name"] == "async"
    assert set(written["ratios"]) == RATIOS
    assert "train_1/batch_4/share_of_ceiling" in written["figures"]
