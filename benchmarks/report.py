"""What every benchmark writes and prints: one flat record of figures and ratios.

{"name", "machine", "commit", "settings", "figures": {}, "ratios": {}}
"""

import argparse
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.json_output import json_text

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of one benchmark.

    Attributes:
        settings: how much was measured.
        figures: by name, which ends in the unit; None where this machine cannot tell.
        ratios: of two sides in the same run; ``a_vs_b`` is a divided by b, ``vs_b`` ours by b.
            Others, and whether more is better, are explained beside each in benchmarks/README.md.
    """

    name: str
    machine: Mapping[str, Any]
    commit: str
    settings: Mapping[str, Any]
    figures: Mapping[str, float | None]
    ratios: Mapping[str, float | None]

    def give(self, console: Console, path: Path | None) -> None:
        """Print it, and write it where there is a path."""
        self.show(console)
        if path is not None:
            self.write(path)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json_text(asdict(self), indent=1) + "\n")

    def show(self, console: Console) -> None:
        """Print it as a table."""
        cores, load = self.machine["cores"], self.machine["load_1min"]
        console.print(
            f"[bold]{self.name}[/] at {self.commit[:12]}, {cores} cores, load {load:.1f}, "
            + ", ".join(f"{key} {value}" for key, value in self.settings.items())
        )
        table = Table("figure", box=None)
        table.add_column("value", justify="right")
        for title, values in (("", self.figures), ("ratio", self.ratios)):
            if title:
                table.add_row("", "")
                table.add_row(f"[bold]{title}[/]", "")
            for key, value in values.items():
                table.add_row(key, "-" if value is None else f"{value:,.4g}")
        console.print(table)


def make_report(
    name: str,
    *,
    settings: Mapping[str, Any],
    figures: Mapping[str, float | None],
    ratios: Mapping[str, float | None],
) -> Report:
    """A report of this machine and commit."""
    return Report(
        name=name,
        machine=describe_machine(),
        commit=current_commit(),
        settings=settings,
        figures=figures,
        ratios=ratios,
    )


def ratio(better: float | None, worse: float | None) -> float | None:
    """``worse / better``, or None where one is not known."""
    return worse / better if better and worse else None


def arguments(description: str) -> argparse.ArgumentParser:
    """The options of every benchmark: ``--quick`` and ``--json PATH``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="less of everything, under a minute")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the report there")
    return parser


def describe_machine() -> dict[str, Any]:
    """Where the figures hold."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / (1 << 30), 1),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }


def current_commit() -> str:
    """The checkout's commit, with ``+`` if files differ from it."""
    commit = _git("rev-parse", "HEAD")
    return f"{commit}+" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*words: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
