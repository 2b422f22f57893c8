"""Kernels: start, throughput, memory and clean-up, side by side with two other ways.

    python -m benchmarks.bench_kernels [--quick] [--json PATH] [--launcher NAME]

Peers, measured in the same run and in turns with ours:

* stock: jupyter_client's AsyncKernelManager and AsyncKernelClient with ipykernel, no sandbox,
  waiting for the reply and the output of each cell;
* L0-style: one bubblewrap and one cold Python per episode, which imports IPython and runs a cell.

A miss is a launch and a first cell, a hit a slot of the pool and a first cell; a life is launch,
cell and end, and its CPU time is that of host and sandbox together.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import uvloop
from rich.console import Console

from actors.kernels.interface import Launcher
from actors.kernels.launchers import make_launcher
from benchmarks.cpu_meter import CpuMeter
from benchmarks.kernels import measures
from benchmarks.kernels.kills import leftovers
from benchmarks.kernels.peers import affordable_stock_kernels, launch_stock
from benchmarks.report import Report, arguments, make_report, ratio
from common.config import Kernel as KernelConfig

Figures = dict[str, float | None]
_NUMPY = "import numpy"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        launcher: ours; ``auto`` is what a run takes.
        rounds: turns that the three ways of starting take; ``lives`` of ours in each.
        kernels: ours at once; ``stock_kernels`` of the peer, if memory and files allow.
        cell_rounds: turns of ``cell_seconds`` that the two ways of running cells take.
        hits, tool_calls, interrupts: repetitions.
        actor_kernels: kernels of the actor that is killed; ``kills`` of them.
    """

    launcher: str = "auto"
    rounds: int = 20
    lives: int = 20
    kernels: int = 64
    stock_kernels: int = 64
    cell_rounds: int = 5
    cell_seconds: float = 2.0
    hits: int = 100
    tool_calls: int = 2000
    interrupts: int = 30
    actor_kernels: int = 16
    kills: int = 5


QUICK = Settings(
    rounds=6,
    lives=15,
    stock_kernels=24,
    cell_rounds=3,
    cell_seconds=1.0,
    hits=40,
    interrupts=10,
    kills=2,
)


async def measure(settings: Settings, meter: CpuMeter, say: Callable[[str], None]) -> Report:
    """Run the whole benchmark."""
    config = KernelConfig(launcher=settings.launcher)  # type: ignore[arg-type]
    launcher = make_launcher(config)
    await launcher.start()
    try:
        say("starts, in turns")
        figures, ratios = await measure_starts(launcher, settings, meter)
        say("pool hits, tool calls, interrupts")
        figures["pool_hit_ms_p50"] = await measures.pool_hit_ms(
            make_launcher(config), settings.hits
        )
        figures["tool_call_us_p50"] = await measures.tool_call_us(launcher, settings.tool_calls)
        figures["interrupt_ms_p50"] = await measures.interrupt_ms(launcher, settings.interrupts)
        say("memory and cells, in turns")
        stock = affordable_stock_kernels(settings.stock_kernels)
        more, more_ratios = await measure_crowds(launcher, settings, stock, meter)
    finally:
        await launcher.close()
    say("killing actors")
    figures |= more | await measure_kills(settings)
    used = {**asdict(settings), "stock_kernels": stock, "level": launcher.level}
    return make_report("kernels", settings=used, figures=figures, ratios=ratios | more_ratios)


async def measure_starts(
    launcher: Launcher, settings: Settings, meter: CpuMeter
) -> tuple[Figures, Figures]:
    """Lives of ours, of a stock kernel and of a cold worker, in turns."""
    ours, stock, worker = measures.Lives(), measures.Lives(), measures.Lives()
    await measures.live_ours(launcher)
    for _ in range(settings.rounds):
        await ours.add(lambda: measures.live_ours(launcher), settings.lives, meter)
        await stock.add(measures.live_stock, 1, meter)
        await worker.add(measures.live_worker, 1, meter)
    ordered = sorted(ours.first_cell_ms)
    figures: Figures = {
        "pool_miss_ms_p50": ours.median_ms,
        "pool_miss_ms_p99": ordered[int(0.99 * (len(ordered) - 1))],
        "kernels_per_s": len(ordered) / ours.seconds,
        "cpu_ms_per_life": ours.cpu_ms_each,
        "stock_start_ms_p50": stock.median_ms,
        "stock_cpu_ms_per_life": stock.cpu_ms_each,
        "l0_style_start_ms_p50": worker.median_ms,
        "l0_style_cpu_ms_per_life": worker.cpu_ms_each,
    }
    return figures, {
        "start_cpu_vs_stock": ratio(ours.cpu_ms_each, stock.cpu_ms_each),
        "start_vs_stock": ratio(ours.median_ms, stock.median_ms),
        "start_vs_l0_style": ratio(ours.median_ms, worker.median_ms),
        "start_cpu_vs_l0_style": ratio(ours.cpu_ms_each, worker.cpu_ms_each),
    }


async def measure_crowds(
    launcher: Launcher, settings: Settings, stock_count: int, meter: CpuMeter
) -> tuple[Figures, Figures]:
    """Memory of many idle kernels with numpy imported, then cells of all at once, in turns."""
    ours = await measures.launch_many(launcher.launch, settings.kernels, at_once=4)
    stock = []
    try:
        for kernel in ours:
            await kernel.execute(_NUMPY, timeout_s=60)
        known = measures.processes_besides([])
        pss = measures.memory_of(known, len(ours))
        stock = await measures.launch_many(launch_stock, stock_count, at_once=4)
        for peer in stock:
            await peer.execute(_NUMPY)
        stock_pss = measures.memory_of(measures.processes_besides(known), len(stock))
        fast, slow = measures.Throughput(), measures.Throughput()
        for _ in range(settings.cell_rounds):
            await fast.add(measures.cells_of_ours(ours), settings.cell_seconds, meter)
            await slow.add(measures.cells_of_stock(stock), settings.cell_seconds, meter)
    finally:
        for kernel in (*ours, *stock):
            await kernel.close()
    figures: Figures = {
        "pss_mib": pss,
        "stock_pss_mib": stock_pss,
        f"cells_per_s_{settings.kernels}": fast.cells_per_s,
        f"stock_cells_per_s_{len(stock)}": slow.cells_per_s,
        "cpu_us_per_cell": fast.per_cell(fast.cpu_ms),
        "host_cpu_us_per_cell": fast.per_cell(fast.host_cpu_ms),
        "stock_cpu_us_per_cell": slow.per_cell(slow.cpu_ms),
        "stock_host_cpu_us_per_cell": slow.per_cell(slow.host_cpu_ms),
    }
    return figures, {
        "cells_per_s_vs_stock": fast.cells_per_s / slow.cells_per_s,
        "pss_vs_stock": stock_pss / pss,
        "host_cpu_per_cell_vs_stock": ratio(
            fast.per_cell(fast.host_cpu_ms), slow.per_cell(slow.host_cpu_ms)
        ),
    }


async def measure_kills(settings: Settings) -> Figures:
    """The worst of several kills of an actor."""
    results = [
        await leftovers(settings.launcher, settings.actor_kernels) for _ in range(settings.kills)
    ]
    return {
        "leftovers_after_sigkill": max(left for left, _ in results),
        "gone_after_sigkill_ms": max(gone for _, gone in results),
    }


def run(settings: Settings, say: Callable[[str], None]) -> Report:
    """Run the whole benchmark on a loop of its own."""
    meter = CpuMeter()
    try:
        return uvloop.run(measure(settings, meter, say))
    finally:
        meter.close()


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    names = ("auto", "forked", "cold", "jupyter")
    parser.add_argument("--launcher", default="auto", choices=names, help="ours; default auto")
    options = parser.parse_args()
    settings = Settings(
        **{**asdict(QUICK if options.quick else Settings()), "launcher": options.launcher}
    )
    console = Console(highlight=False)
    with console.status("") as status:
        report = run(settings, lambda title: status.update(title))
    report.give(console, options.json)


if __name__ == "__main__":
    main()
