"""Runs probes in real kernels, next to a sibling that must not notice."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.kernels.interface import (
    CellResult,
    CellStatus,
    DeathCause,
    KernelDiedError,
    Launcher,
    LiveKernel,
)
from actors.kernels.probes.bait import Bait
from actors.kernels.probes.catalogue import STAND_BY, TAKE_A_SHARE
from actors.kernels.probes.inside import Target
from actors.kernels.probes.probe import Probe, ProbeOutcome, opening_cell, verdict_of
from common.config import Kernel as KernelConfig

PATIENCE = 6
"""How many times its limit an attack may take at its second try."""
_SETUP_TIMEOUT_S = 30.0
_MARK = 271828


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeResult:
    """How one attack ended.

    Attributes:
        level: of the kernel it ran in.
        reason: why it was blocked, or what it got hold of.
        seconds: wall time.
        deaf: its kernel was killed because it did not stop in time after an interrupt.
    """

    probe: Probe
    level: str
    outcome: ProbeOutcome
    reason: str
    seconds: float
    deaf: bool = False

    @property
    def out_of_time(self) -> bool:
        """Whether it could not be carried out in its time, which proves nothing either way."""
        return not self.ok and (self.outcome is ProbeOutcome.TIMED_OUT or self.deaf)

    @property
    def ok(self) -> bool:
        """Whether it ended as it must at this level."""
        return self.outcome in self.probe.acceptable(self.level)


def probe_limits(config: KernelConfig) -> KernelConfig:
    """``config`` with limits so small that no attack can hurt the machine, nor take long."""
    return dataclasses.replace(
        config,
        grace_s=0.3,
        memory_mib=384,
        sandbox_memory_mib=768,
        workspace_mib=16,
        inodes=2048,
        processes=48,
        cpu_s=12.0,
        output_bytes=1 << 16,
    )


async def run_probes(
    launcher: Launcher,
    probes: Sequence[Probe],
    bait: Bait,
    *,
    report: Callable[[ProbeResult], None] | None = None,
) -> list[ProbeResult]:
    """Run ``probes`` one after the other; a kernel that dies is replaced for the next.

    An attack that could not be carried out in its time gets one more try, in a kernel of its own
    and with ``PATIENCE`` times that time: the machine may be busy.

    After each attack a sibling kernel is asked for a variable, and the host's servers whether
    somebody connected; an attack that harmed one or reached the other has escaped.

    Args:
        launcher: started.
        probes: in this order.
        bait: what is laid out on the host.
        report: called with each result as soon as it is there.

    Raises:
        KernelDiedError: a kernel does not even start.
    """
    sibling = _Sibling(await launcher.launch())
    attacker: LiveKernel | None = None
    results = []
    try:
        target = await sibling.stand_by(bait.target)
        for probe in probes:
            if attacker is None or not attacker.alive:
                attacker = await _open_kernel(launcher, target)
            result = await _run(launcher, attacker, probe, sibling, bait)
            if result.out_of_time:
                await attacker.close()
                attacker = await _open_kernel(launcher, target)
                patient = dataclasses.replace(probe, timeout_s=PATIENCE * probe.timeout_s)
                result = await _run(launcher, attacker, patient, sibling, bait)
            results.append(result)
            if report is not None:
                report(result)
    finally:
        for kernel in filter(None, (attacker, sibling.kernel)):
            await kernel.close()
    return results


async def _run(
    launcher: Launcher, kernel: LiveKernel, probe: Probe, sibling: "_Sibling", bait: Bait
) -> ProbeResult:
    started = time.monotonic()
    outcome, reason, deaf = await _attack(kernel, probe)
    harm = await sibling.harm()
    if probe.keeps:
        harm = harm or await sibling.lack() or await _start_problem(launcher)
        await kernel.close()
    if taken := bait.taken():
        harm = f"it reached {', '.join(taken)}"
    return ProbeResult(
        probe=probe,
        level=kernel.level,
        outcome=ProbeOutcome.ESCAPED if harm else outcome,
        reason=harm or reason,
        seconds=time.monotonic() - started,
        deaf=deaf and not harm,
    )


async def _start_problem(launcher: Launcher) -> str:
    """Why no further kernel starts, or nothing."""
    try:
        kernel = await launcher.launch()
    except KernelDiedError as error:
        return f"no kernel starts any more: {error}"
    await kernel.close()
    return ""


async def _attack(kernel: LiveKernel, probe: Probe) -> tuple[ProbeOutcome, str, bool]:
    """Outcome, reason, and whether the kernel was killed as it did not stop at an interrupt."""
    try:
        result = await kernel.execute(probe.cell, timeout_s=probe.timeout_s)
        if probe.lethal:
            await kernel.execute("1", timeout_s=_SETUP_TIMEOUT_S)
    except KernelDiedError as error:
        await kernel.close()
        return ProbeOutcome.KILLED, str(error), error.cause is DeathCause.IGNORED_INTERRUPT
    return *_outcome_of(result), False


def _outcome_of(result: CellResult) -> tuple[ProbeOutcome, str]:
    if result.status is CellStatus.TIMED_OUT:
        return ProbeOutcome.TIMED_OUT, f"interrupted after {result.seconds:.1f} s"
    if result.dropped_bytes:
        return ProbeOutcome.CAPPED, f"{result.dropped_bytes} bytes of output dropped"
    if result.error_name == MemoryError.__name__:
        return ProbeOutcome.BLOCKED, "MemoryError"
    return verdict_of(result.output)


async def _open_kernel(launcher: Launcher, target: Target) -> LiveKernel:
    kernel = await launcher.launch()
    result = await kernel.execute(opening_cell(target), timeout_s=_SETUP_TIMEOUT_S)
    if result.status is not CellStatus.OK:
        raise KernelDiedError(
            f"the kernel could not be prepared for attacks: {result.output[-500:]}"
        )
    return kernel


class _Sibling:
    """A kernel that is not attacked from; it must keep its variables."""

    def __init__(self, kernel: LiveKernel) -> None:
        self.kernel = kernel

    async def stand_by(self, target: Target) -> Target:
        """Let it listen and leave files; ``target`` with its process id on the host."""
        cells = (opening_cell(target), STAND_BY.cell, f"kept = {_MARK}")
        for cell in cells:
            result = await self.kernel.execute(cell, timeout_s=_SETUP_TIMEOUT_S)
        if result.status is not CellStatus.OK:
            raise KernelDiedError(
                f"the sibling kernel could not be prepared: {result.output[-500:]}"
            )
        return dataclasses.replace(target, victim_pid=_find_process(f"v-{target.token}"))

    async def harm(self) -> str:
        """What is wrong with it, or nothing."""
        try:
            result = await self.kernel.execute("kept", timeout_s=_SETUP_TIMEOUT_S)
        except KernelDiedError as error:
            return f"the sibling kernel died: {error}"
        return "" if result.output.strip() == str(_MARK) else "the sibling lost its variables"

    async def lack(self) -> str:
        """What it cannot have while an attacker keeps what it took, or nothing."""
        result = await self.kernel.execute(TAKE_A_SHARE.cell, timeout_s=_SETUP_TIMEOUT_S)
        outcome, reason = verdict_of(result.output)
        return "" if outcome is ProbeOutcome.BLOCKED else f"the sibling lacks {reason}"


def _find_process(name: str) -> int:
    """The process that calls itself ``name``; 0 if there is none."""
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == name:
                return int(folder.name)
        except OSError:
            continue
    return 0
