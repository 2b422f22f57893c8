"""How much faster asynchronous training is than synchronous training, and how near its ceiling.

    python -m benchmarks.bench_async [--quick] [--json PATH] [--median-s X] [--staleness N]
        [--at-once N] [--scales X ...] [--quickstart N] [--set KEY=VALUE ...]

A sweep of the time of a step and the size of a batch, with episodes that are timers and have a long
tail (``benchmarks/asynchrony/workload.py``), on the real coordinator, connection and journal; and
with ``--quickstart N`` as many rounds of the quickstart with a real vLLM, synchronous and not.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean

from rich.console import Console
from rich.table import Table

from benchmarks.asynchrony.quickstart import (
    QuickstartRun,
    compare_quickstarts,
    run_quickstarts,
)
from benchmarks.asynchrony.sweep import QUICK, Cell, Sweep, run_scales, run_sweep
from benchmarks.asynchrony.training import Measured
from benchmarks.report import Report, arguments, make_report
from common.errors import LZeroError

Figures = dict[str, float | None]
SCALES = (0.5, 2.0)


def compare(cells: Sequence[Cell]) -> tuple[Figures, Figures]:
    """Figures of the sweep, and of each cell; the ratios that stand for all of it.

    ``learner_idle_async`` and ``learner_idle_sync`` are means over the cells in which a step takes
    as long as all slots generate a batch, so that neither side has to wait for the other.
    """
    even = [cell for cell in cells if cell.train_over_generation == 1.0]
    figures: Figures = {
        "learner_idle_async": fmean(cell.ahead.learner_idle for cell in even),
        "learner_idle_sync": fmean(cell.synchronous.learner_idle for cell in even),
        "share_of_ceiling_in_virtual_time": min(cell.virtual.share_of_ceiling for cell in cells),
        "sync_vs_closed_form_least": min(cell.sync_vs_closed_form for cell in cells),
        "sync_vs_closed_form_most": max(cell.sync_vs_closed_form for cell in cells),
    }
    for cell in cells:
        figures |= {f"{cell.name}/{key}": value for key, value in _figures_of(cell).items()}
    ratios: Figures = {
        "async_vs_sync": max(cell.async_vs_sync for cell in cells),
        "share_of_ceiling": min(cell.ahead.share_of_ceiling for cell in cells),
    }
    return figures, ratios


def _figures_of(cell: Cell) -> Figures:
    figures: Figures = {
        "async_vs_sync": cell.async_vs_sync,
        "share_of_ceiling": cell.ahead.share_of_ceiling,
        "share_of_ceiling_in_virtual_time": cell.virtual.share_of_ceiling,
        "async_vs_closed_form_in_virtual_time": cell.virtual.vs_closed_form,
        "sync_vs_closed_form": cell.sync_vs_closed_form,
    }
    for kind, side in (("async", cell.ahead), ("sync", cell.synchronous)):
        figures |= {f"{kind}_{key}": value for key, value in side_figures(side).items()}
    return figures


def side_figures(side: Measured) -> Figures:
    """Of one training."""
    return {
        "trajectories_per_s": side.per_s,
        "learner_idle": side.learner_idle,
        "slots_idle": side.slots_idle,
        "staleness_mean": side.staleness,
        "staleness_max": side.staleness_max,
        "depth": side.depth,
        "dropped": side.dropped,
        "cpu_s": side.cpu_s,
    }


def compare_scales(scales: Mapping[float, Measured]) -> Figures:
    """What is the same at every scale if what timers and our code cost does not count."""
    return {
        f"scale_{scale:g}/{key}": value
        for scale, side in scales.items()
        for key, value in {
            "share_of_ceiling": side.share_of_ceiling,
            "learner_idle": side.learner_idle,
            "slots_idle": side.slots_idle,
        }.items()
    }


def table_of(cells: Sequence[Cell]) -> Table:
    """One row per cell; idle shares and rates of asynchronous and synchronous training."""
    table = Table("step / generation", "batch / slots", title="asynchronous (synchronous)")
    for title in (
        "trajectories/s", "async_vs_sync", "share of ceiling (virtual time)", "learner idle",
        "slots idle", "staleness mean, max", "sync / closed form",
    ):  # fmt: skip
        table.add_column(title, justify="right")
    for cell in cells:
        ahead, still = cell.ahead, cell.synchronous
        table.add_row(
            f"{cell.train_over_generation:g}",
            f"{cell.batch_over_slots:g}",
            f"{ahead.per_s:.1f} ({still.per_s:.1f})",
            f"{cell.async_vs_sync:.2f}",
            f"{ahead.share_of_ceiling:.3f} ({cell.virtual.share_of_ceiling:.3f})",
            f"{ahead.learner_idle:.0%} ({still.learner_idle:.0%})",
            f"{ahead.slots_idle:.0%} ({still.slots_idle:.0%})",
            f"{ahead.staleness:.1f}, {ahead.staleness_max}",
            f"{cell.sync_vs_closed_form:.3f}",
        )
    return table


def parse() -> argparse.Namespace:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--median-s", type=float, help="median time of an episode, seconds")
    parser.add_argument("--staleness", type=int, help="bound of asynchronous training, versions")
    parser.add_argument("--at-once", type=int, help="synchronous trainings beside each other")
    parser.add_argument(
        "--scales", type=float, nargs="*", metavar="X",
        help="also run one training with all times so many times as long; 0.5 and 2",
    )  # fmt: skip
    parser.add_argument("--quickstart", type=int, default=0, metavar="N", help="rounds; 0")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for the quickstart"
    )
    options = parser.parse_args()
    if options.scales is None:
        options.scales = [] if options.quick else list(SCALES)
    return options


def sweep_of(options: argparse.Namespace) -> Sweep:
    """What is measured."""
    given = {
        "median_s": options.median_s,
        "max_staleness": options.staleness,
        "at_once": options.at_once,
    }
    told = {name: value for name, value in given.items() if value is not None}
    return replace(QUICK if options.quick else Sweep(), **told)


def run(options: argparse.Namespace, console: Console) -> Report:
    """Measure what the options describe.

    Raises:
        LZeroError: a training failed.
    """
    sweep = sweep_of(options)
    with console.status("") as status:
        cells = run_sweep(sweep, status.update)
        scales = run_scales(sweep, options.scales, status.update)
        runs = run_quickstarts(options.quickstart, settings=options.set, say=status.update)
    console.print(table_of(cells))
    return report_of(sweep, cells, scales, runs)


def report_of(
    sweep: Sweep,
    cells: Sequence[Cell],
    scales: Mapping[float, Measured],
    runs: Mapping[str, Sequence[QuickstartRun]],
) -> Report:
    """All that was measured; ``runs`` of the quickstart may be none."""
    figures, ratios = compare(cells)
    figures |= compare_scales(scales)
    rounds = min(map(len, runs.values()), default=0)
    if rounds:
        more_figures, more_ratios = compare_quickstarts(runs)
        figures, ratios = figures | more_figures, ratios | more_ratios
    settings = {**asdict(sweep), "quickstart_rounds": rounds}
    return make_report("async", settings=settings, figures=figures, ratios=ratios)


def main() -> None:
    options = parse()
    console = Console(highlight=False)
    try:
        report = run(options, console)
    except LZeroError as error:
        sys.exit(f"error: {error}")
    report.give(console, options.json)


if __name__ == "__main__":
    main()
