"""What ``lzero doctor`` asks of the sandbox: starts it at every level, and attacks it."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from actors.kernels.interface import Launcher
from actors.kernels.launchers import make_launcher
from actors.kernels.limits.host_uids import has_own_uids
from actors.kernels.probes.bait import Bait, laid_out
from actors.kernels.probes.catalogue import PROBES
from actors.kernels.probes.probe import Probe
from actors.kernels.probes.run import ProbeResult, probe_limits, run_probes
from actors.kernels.runtime import find_runtime
from common.config import Config
from common.errors import LZeroError, MachineError
from launch.doctor.findings import Finding, Verdict, failure, fine, warning

_Name = Literal["forked", "cold", "jupyter"]
_CANDIDATES: tuple[_Name, ...] = ("forked", "cold")
"""What ``auto`` chooses from, best first."""
_ALL: tuple[_Name, ...] = (*_CANDIDATES, "jupyter")
_LEVELS = {"forked": "A-forked", "cold": "B-cold", "jupyter": "B-jupyter"}
_CELL_TIMEOUT_S = 20.0
_QUICK = tuple(probe for probe in PROBES if not probe.slow)
_SHOWN = 3
_SHOWN_PACKAGES = ("ipython", "numpy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What came of one launcher.

    Attributes:
        problem: why it cannot be used; empty if it can.
        first_cell_ms: from launch to the end of a first cell.
        results: of the attacks; ``seconds`` is what they took.
    """

    name: str
    problem: str = ""
    first_cell_ms: float = 0.0
    results: Sequence[ProbeResult] = ()
    seconds: float = 0.0

    @property
    def level(self) -> str:
        """Isolation level."""
        return _LEVELS[self.name]


@dataclass(slots=True)
class SandboxChecks:
    """Tries the launchers one after the other.

    Attributes:
        config: of the run.
        say: told what is being tried.
        probes: the attacks; where no run would take a launcher, only those its kernels survive.
    """

    config: Config
    say: Callable[[str], None]
    probes: Sequence[Probe] = _QUICK

    def check_runtime(self) -> Iterator[Finding]:
        """The kernels' own Python."""
        try:
            runtime = find_runtime()
        except MachineError as fault:
            yield failure("kernel runtime", str(fault), "run `make setup`")
            return
        folders = [str(folder) for folder in runtime.prefix.glob("lib/python*/site-packages")]
        installed = metadata.distributions(path=folders)
        versions = {package.name.lower(): package.version for package in installed}
        shown = ", ".join(f"{name} {versions.get(name, 'missing')}" for name in _SHOWN_PACKAGES)
        yield fine("kernel runtime", f"{shown}, {len(versions)} packages in {runtime.prefix}")

    def check_launchers(self) -> Iterator[Finding]:
        """Start each level for real, attack it, and tell which one a run would take."""
        chosen = None
        for name in self._in_order():
            self.say(f"starting a sandbox at level {_LEVELS[name]}")
            trial = self._try(name, whole_list=chosen is None)
            if chosen is None and not trial.problem and self._may_choose(name):
                chosen = name
            yield from judge(trial, chosen=chosen == name)
        if chosen is None:
            yield self._nothing_to_choose()

    def _in_order(self) -> list[_Name]:
        """The launcher that the configuration names first."""
        wanted = self.config.kernel.launcher
        return sorted(_ALL, key=lambda name: name != wanted)

    def _may_choose(self, name: str) -> bool:
        wanted = self.config.kernel.launcher
        allowed = _CANDIDATES if wanted == "auto" else (wanted,)
        return name in allowed and _LEVELS[name][0] <= self.config.kernel.minimum_level

    def _nothing_to_choose(self) -> Finding:
        wanted, minimum = self.config.kernel.launcher, self.config.kernel.minimum_level
        found = f"nothing for kernel.launcher = '{wanted}', kernel.minimum_level = '{minimum}'"
        if minimum == "unsafe":
            return warning(
                "kernels", found, "cells will run without a sandbox (kernel.minimum_level)"
            )
        return failure("kernels", found, "follow the fixes of the sandbox lines above")

    def _try(self, name: _Name, *, whole_list: bool) -> Trial:
        probes = [probe for probe in self.probes if whole_list or not probe.lethal]
        if not has_own_uids(self.config.kernel, name):  # which is said elsewhere
            probes = [probe for probe in probes if not probe.keeps]
        limits = dataclasses.replace(
            probe_limits(self.config.kernel), launcher=name, minimum_level="B"
        )
        launcher = make_launcher(limits)
        with laid_out(limits) as bait:
            return asyncio.run(self._attack(name, launcher, probes, bait))

    async def _attack(
        self, name: str, launcher: Launcher, probes: Sequence[Probe], bait: Bait
    ) -> Trial:
        done: list[ProbeResult] = []

        def report(result: ProbeResult) -> None:
            done.append(result)
            self.say(f"attacking {_LEVELS[name]}: {len(done)}/{len(probes)} {result.probe.name}")

        try:
            await launcher.start()
            first_cell_ms = await _first_cell_ms(launcher)
            started = time.monotonic()
            await run_probes(launcher, probes, bait, report=report)
            seconds = time.monotonic() - started
        except (LZeroError, OSError) as error:
            return Trial(name=name, problem=str(error), results=tuple(done))
        finally:
            await launcher.close()
        return Trial(name=name, first_cell_ms=first_cell_ms, results=tuple(done), seconds=seconds)


def judge(trial: Trial, *, chosen: bool) -> Iterator[Finding]:
    """Findings about one launcher; pure."""
    if trial.problem:
        problem = f"cannot be used: {trial.problem}"
        yield warning(f"sandbox {trial.level}", problem, _ADVICE[trial.name])
        return
    taken = "; runs take this one" if chosen else ""
    cell = f"first cell {trial.first_cell_ms:.0f} ms after its launch{taken}"
    yield fine(f"sandbox {trial.level}", cell)
    wrong = [result for result in trial.results if not result.ok]
    count = len(trial.results)
    found = f"{count - len(wrong)} of {count} blocked in {trial.seconds:.1f} s"
    if not wrong:
        yield fine(f"attacks {trial.level}", found)
        return
    shown = "; ".join(
        f"{result.probe.name}: {result.outcome} ({result.reason})" for result in wrong[:_SHOWN]
    )
    yield Finding(
        name=f"attacks {trial.level}",
        verdict=Verdict.FAIL if chosen else Verdict.WARN,
        found=f"{found}; {shown}",
        fix=_fix(wrong),
    )


def _fix(wrong: Sequence[ProbeResult]) -> str:
    """What to do about attacks that did not end as they must."""
    if all(result.out_of_time for result in wrong):
        return (
            "this proves nothing: also alone and with a longer limit the attack did not come to "
            "its end, as on a machine that is busy; run `lzero doctor` again when it is quiet"
        )
    return "do not run a model's code here before this is understood; see docs/sandbox.md"


_ADVICE = {
    "forked": "do what it says; without it runs take B-cold, which starts kernels more slowly",
    "cold": "needed only where A-forked cannot be used",
    "jupyter": "needed only for kernel.launcher = 'jupyter'",
}


async def _first_cell_ms(launcher: Launcher) -> float:
    started = time.monotonic()
    kernel = await launcher.launch()
    try:
        await kernel.execute("1 + 1", timeout_s=_CELL_TIMEOUT_S)
        return (time.monotonic() - started) * 1000
    finally:
        await kernel.close()
