"""Kernels: start, throughput and CPU cost of both launchers.

    python -m benchmarks.bench_kernels [--quick] [--json PATH]

A "miss" is a launch followed by a first cell, a "hit" is a slot of the pool followed by a first
cell. A kernel's life is launch, one cell and kill; its CPU time covers host and sandbox.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from actors.kernels.interface import Launcher
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from benchmarks.cpu_meter import CpuMeter
from common.config import Kernel as KernelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How much is measured; 0 slots leaves pool and throughput out."""

    lives: int
    slots: int
    concurrent: int
    seconds: float


FORKED = Settings(lives=300, slots=100, concurrent=64, seconds=5.0)
JUPYTER = Settings(lives=10, slots=0, concurrent=8, seconds=5.0)
FORKED_QUICK = Settings(lives=100, slots=40, concurrent=64, seconds=2.0)
JUPYTER_QUICK = Settings(lives=3, slots=0, concurrent=4, seconds=2.0)


async def first_cell_ms(launcher: Launcher) -> float:
    started = time.perf_counter()
    kernel = await launcher.launch()
    await kernel.execute("1 + 1", timeout_s=30)
    elapsed = (time.perf_counter() - started) * 1000
    await kernel.close()
    return elapsed


async def measure_lives(launcher: Launcher, count: int, meter: CpuMeter) -> dict[str, float | None]:
    await first_cell_ms(launcher)
    cpu, started = meter.read_ms(), time.perf_counter()
    times = sorted([await first_cell_ms(launcher) for _ in range(count)])
    seconds = time.perf_counter() - started
    used = meter.read_ms()
    return {
        "pool_miss_ms_p50": statistics.median(times),
        "pool_miss_ms_p99": times[int(0.99 * (count - 1))],
        "pool_miss_ms_min": times[0],
        "kernels_per_s": count / seconds,
        "cpu_ms_per_kernel_life": None if used is None or cpu is None else (used - cpu) / count,
    }


async def measure_hits(launcher: Launcher, count: int) -> dict[str, float]:
    pool = KernelPool(launcher, idle=8)
    await pool.start()
    times = []
    while len(times) < count:
        hits = pool.statistics().hits
        started = time.perf_counter()
        async with pool.slot() as kernel:
            await kernel.execute("1 + 1", timeout_s=30)
            elapsed = (time.perf_counter() - started) * 1000
        if pool.statistics().hits > hits:
            times.append(elapsed)
        await asyncio.sleep(0.05)
    await pool.close()
    return {"pool_hit_ms_p50": statistics.median(times)}


async def measure_cells(
    launcher: Launcher, concurrent: int, seconds: float, meter: CpuMeter
) -> dict[str, float | None]:
    kernels = [await launcher.launch() for _ in range(concurrent)]
    deadline = time.perf_counter() + seconds

    async def loop(index: int) -> int:
        done = 0
        while time.perf_counter() < deadline:
            await kernels[index].execute("1 + 1", timeout_s=30)
            done += 1
        return done

    cpu, own, started = meter.read_ms(), own_cpu_ms(), time.perf_counter()
    cells = sum(await asyncio.gather(*(loop(i) for i in range(concurrent))))
    elapsed = time.perf_counter() - started
    used, own_used = meter.read_ms(), own_cpu_ms()
    await asyncio.gather(*(kernel.close() for kernel in kernels))
    return {
        f"cells_per_s_over_{concurrent}": cells / elapsed,
        "host_cpu_us_per_cell": (own_used - own) / cells * 1000,
        "cpu_ms_per_cell": None if used is None or cpu is None else (used - cpu) / cells,
    }


def own_cpu_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1000


async def measure(name: str, settings: Settings, meter: CpuMeter) -> dict[str, float | None]:
    launcher = make_launcher(KernelConfig(launcher=name))  # type: ignore[arg-type]
    started = time.perf_counter()
    await launcher.start()
    figures: dict[str, float | None] = {"launcher_start_s": time.perf_counter() - started}
    try:
        figures |= await measure_lives(launcher, settings.lives, meter)
        figures |= await measure_cells(launcher, settings.concurrent, settings.seconds, meter)
        if settings.slots:
            figures |= await measure_hits(launcher, settings.slots)
    finally:
        await launcher.close()
    return figures


def ratios(forked: dict[str, float | None], jupyter: dict[str, float | None]) -> dict[str, float]:
    """How many times cheaper the forked kernels are."""
    found = {}
    for key in ("pool_miss_ms_p50", "cpu_ms_per_kernel_life", "cpu_ms_per_cell"):
        ours, theirs = forked.get(key), jupyter.get(key)
        if ours and theirs:
            found[f"jupyter_over_forked_{key}"] = theirs / ours
    return found


def machine() -> dict[str, object]:
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = {
        "forked": FORKED_QUICK if options.quick else FORKED,
        "jupyter": JUPYTER_QUICK if options.quick else JUPYTER,
    }
    meter = CpuMeter()
    try:
        figures = {name: uvloop.run(measure(name, use, meter)) for name, use in settings.items()}
    finally:
        meter.close()
    report = {
        "name": "kernels",
        "machine": machine(),
        "commit": commit(),
        "settings": {name: asdict(use) for name, use in settings.items()},
        "figures": figures,
        "ratios": ratios(figures["forked"], figures["jupyter"]),
    }
    text = json.dumps(report, indent=2)
    if options.json:
        options.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
