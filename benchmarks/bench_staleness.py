"""How much learning is left when the data is old: the staleness experiment.

    python -m benchmarks.bench_staleness [--quick] [--json PATH] [--figure PATH] [--seeds N]

Every objective on data 1, 4, 8 and 16 updates old, for both advantages, against training on fresh
data (the simulator: ``benchmarks/staleness.py``). Prints the final reward relative to fresh data
and the effective sample size, mean and standard error over seeds, and draws the curves.
"""

import dataclasses
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import arguments, make_report
from benchmarks.staleness import METHODS, UNBOUNDED, Outcome, World, train
from common.config import Objective
from launch.report.charts import COLOURS, Series, line_chart

ADVANTAGES = ("reinforce_pp", "group_loo")
STALENESS = (1, 4, 8, 16)
FRESH = "fresh"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One cell of the table."""

    method: str
    advantage: str
    staleness: int

    @property
    def objective(self) -> Objective:
        """The method's objective with this advantage."""
        method = METHODS["apg" if self.method == FRESH else self.method]
        # The published estimator does not clip advantages.
        clip = UNBOUNDED if self.advantage == "reinforce_pp" else method.advantage_clip
        return dataclasses.replace(
            method, advantage=self.advantage, advantage_clip=clip  # type: ignore[arg-type]
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """What came of one arm over all seeds, relative to the same seeds on fresh data."""

    reward: float
    relative: float
    standard_error: float
    effective_sample_size: float
    masked_share: float


def run_arm(arm: Arm, seed: int, world: World) -> Outcome:
    """One run in a process of its own."""
    torch.set_num_threads(1)
    return train(arm.objective, staleness=arm.staleness, seed=seed, world=world)


def run_all(arms: list[Arm], seeds: int, world: World) -> dict[Arm, list[Outcome]]:
    """Every arm for every seed, on all cores."""
    jobs = [(arm, seed) for arm in arms for seed in range(seeds)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(run_arm, arm, seed, world) for arm, seed in jobs]
        outcomes = [future.result() for future in futures]
    found: dict[Arm, list[Outcome]] = {arm: [] for arm in arms}
    for (arm, _), outcome in zip(jobs, outcomes, strict=True):
        found[arm].append(outcome)
    return found


def summarise(found: dict[Arm, list[Outcome]]) -> dict[Arm, Cell]:
    """Means over seeds; relative rewards are ratios of means."""
    fresh = {
        arm.advantage: np.mean([o.reward for o in outcomes])
        for arm, outcomes in found.items()
        if arm.method == FRESH
    }
    cells = {}
    for arm, outcomes in found.items():
        rewards = np.array([outcome.reward for outcome in outcomes])
        error = rewards.std(ddof=1) / len(rewards) ** 0.5 if len(rewards) > 1 else 0.0
        cells[arm] = Cell(
            reward=float(rewards.mean()),
            relative=float(rewards.mean() / fresh[arm.advantage]),
            standard_error=float(error / fresh[arm.advantage]),
            effective_sample_size=float(np.mean([o.effective_sample_size for o in outcomes])),
            masked_share=float(np.mean([o.masked_share for o in outcomes])),
        )
    return cells


def table_of(cells: dict[Arm, Cell], advantage: str, staleness: tuple[int, ...]) -> Table:
    """Relative reward +- standard error (effective sample size) by method and staleness."""
    table = Table("objective", title=f"advantage {advantage}: reward relative to fresh data")
    for age in staleness:
        table.add_column(f"staleness {age}", justify="right")
    for method in METHODS:
        row = [cells[Arm(method=method, advantage=advantage, staleness=age)] for age in staleness]
        table.add_row(
            method,
            *(
                f"{c.relative:.2f} +- {c.standard_error:.2f} ({c.effective_sample_size:.2f})"
                for c in row
            ),
        )
    return table


def figure(cells: dict[Arm, Cell], advantage: str, staleness: tuple[int, ...]) -> str:
    """The curves of one advantage as SVG."""
    series = [
        Series(
            name=method,
            colour=colour,
            points=[(0.0, 1.0)]
            + [
                (age, cells[Arm(method=method, advantage=advantage, staleness=age)].relative)
                for age in staleness
            ],
            is_marked=True,
        )
        for method, colour in zip(METHODS, COLOURS, strict=False)
    ]
    return line_chart(
        series,
        title=f"Reward relative to fresh data, {advantage}",
        x_label="staleness, updates",
        y_max=1.2,
        is_share=False,
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--figure", type=Path, metavar="PATH", help="HTML page with the curves")
    options = parser.parse_args()
    world, seeds, staleness = World(), options.seeds, STALENESS
    if options.quick:
        world, seeds, staleness = dataclasses.replace(World(), updates=60), 1, (8,)
    arms = [Arm(method=FRESH, advantage=advantage, staleness=0) for advantage in ADVANTAGES]
    arms += [
        Arm(method=method, advantage=advantage, staleness=age)
        for advantage in ADVANTAGES
        for method in METHODS
        for age in staleness
    ]
    started = time.monotonic()
    cells = summarise(run_all(arms, seeds, world))
    console = Console()
    for advantage in ADVANTAGES:
        console.print(table_of(cells, advantage, staleness))
    if options.figure:
        charts = "".join(figure(cells, advantage, staleness) for advantage in ADVANTAGES)
        options.figure.write_text(f"<!doctype html><meta charset='utf-8'>{charts}\n")
    report = make_report(
        "staleness",
        settings={**dataclasses.asdict(world), "seeds": seeds},
        figures={
            "minutes": (time.monotonic() - started) / 60,
            **{
                f"{arm.advantage}/{arm.method}/staleness_{arm.staleness}/{name}": value
                for arm, cell in cells.items()
                for name, value in dataclasses.asdict(cell).items()
            },
        },
        ratios={
            f"{arm.advantage}/{arm.method}_vs_fresh_at_{arm.staleness}": cell.relative
            for arm, cell in cells.items()
            if arm.method != FRESH
        },
    )
    if options.json:
        report.write(options.json)


if __name__ == "__main__":
    main()
