"""TRL's side, seen from outside: its process is ``benchmarks.trl.peer``."""

import json
from pathlib import Path

from benchmarks.trl.curve import Point, SideRun
from benchmarks.trl.processes import run_counted
from benchmarks.trl.work import Work, write_work


def run_trl(work: Work, folder: Path) -> SideRun:
    """Train in ``folder``, which is fresh.

    Raises:
        RunError: it failed, or its prompts are not ours.
    """
    told, out = folder / "work.json", folder / "points.json"
    write_work(work, told)
    words = ("--work", str(told), "--out", str(out))
    ran = run_counted("benchmarks.trl.peer", *words, folder=folder, cores=work.cores)
    points = tuple(
        Point(seconds=seconds, success=success) for seconds, success in json.loads(out.read_text())
    )
    return SideRun(
        points=points,
        start_s=ran.seconds - points[-1].seconds,
        cpu_s=ran.cpu_s,
        processes=ran.processes,
    )
