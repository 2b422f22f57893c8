"""The benchmark of the transport measures what it promises, and counts what is on the disk."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.bench_transport import QUICK, run
from benchmarks.report import Report
from benchmarks.transport.actors import Told
from benchmarks.transport.comparison import Found, figures_of, ratios_of
from benchmarks.transport.ours import Load, counted, deliver
from benchmarks.transport.work import Measured, frames_of

FIGURES = {
    *("delivery_ms_p50", "lost", "duplicated", "small_learner_cpu_ms"),
    *("small_trajectories_per_s", "large_trajectories_per_s", "large_mb_per_s"),
    *("raw_large_trajectories_per_s", "polled_trajectories_per_s", "polled_delivery_ms_p50"),
}
RATIOS = {"vs_raw_pyzmq", "vs_polled_files", "cost_1000_vs_1"}
TINY = replace(
    QUICK, small=1, large=1, groups=2, slots=8, polled=8, actors=16, batches_of_many=2, deliveries=8
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(TINY, tmp_path_factory.mktemp("transport"), lambda name: None)


def test_every_promised_figure_and_ratio_is_there_and_finite(report: Report) -> None:
    assert set(report.figures) >= FIGURES
    assert set(report.ratios) >= RATIOS
    for value in (*report.figures.values(), *report.ratios.values()):
        assert value is not None
        assert math.isfinite(value)
    assert report.figures["lost"] == report.figures["duplicated"] == 0


def test_the_file_holds_what_the_report_says(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.json")

    written = json.loads((tmp_path / "report.json").read_text())
    assert written["name"] == "transport"
    assert written["ratios"] == dict(report.ratios)


def test_what_is_not_on_the_disk_is_lost_and_what_is_taken_twice_is_doubled(tmp_path: Path) -> None:
    deliver(Load(num_bytes=3000, groups=1, batches=1, slots=8), tmp_path)
    told = Told.read(tmp_path / "a0.told.json")
    more = replace(told, delivery_ms=told.delivery_ms | {"g999999-0-1": 1.0})
    ids = list(told.delivery_ms)

    found = counted(tmp_path, [told], ids, per_s=1.0, cpu_ms=1.0)
    missing = counted(tmp_path, [more], [*ids, ids[0]], per_s=1.0, cpu_ms=1.0)

    assert len(ids) >= 16
    assert (found.lost, found.duplicated) == (0, 0)
    assert (missing.lost, missing.duplicated) == (1, 1)


@pytest.mark.parametrize("num_bytes", [30_000, 300_000])
def test_a_trajectory_takes_about_the_bytes_that_it_is_made_for(num_bytes: int) -> None:
    size = sum(memoryview(frame).nbytes for frame in frames_of(num_bytes))

    assert abs(size - num_bytes) < num_bytes * 0.1


def test_ratios_are_ours_divided_by_the_other_within_a_round() -> None:
    def rounds(*rates: float, cpu_ms: float = 1.0) -> list[Measured]:
        return [Measured(per_s=rate, cpu_ms=cpu_ms, delivery_ms=(1.0, 3.0)) for rate in rates]

    found = Found(
        small_bytes=1, large_bytes=1000,
        small=rounds(10, 20, 30), raw_small=rounds(20, 20, 20), polled=rounds(5, 5, 5),
        large=rounds(3, 6, 100), raw_large=rounds(6, 6, 100),
        one=rounds(1, 1, 1, cpu_ms=2.0), thousand=rounds(1, 1, 1, cpu_ms=3.0), idle=rounds(1),
    )  # fmt: skip

    ratios, figures = ratios_of(found), figures_of(found)

    assert ratios["vs_raw_pyzmq"] == 1.0
    assert ratios["vs_raw_pyzmq_small"] == 1.0
    assert ratios["vs_polled_files"] == 4.0
    assert ratios["cost_1000_vs_1"] == 1.5
    assert figures["large_mb_per_s"] == 0.006
    assert (figures["small_trajectories_per_s_least"], figures["delivery_ms_p50"]) == (10, 2.0)
