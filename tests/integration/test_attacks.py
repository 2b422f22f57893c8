"""The attack list in real kernels of every launcher: all blocked, sibling and host unharmed."""

import asyncio
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from actors.kernels.launchers import make_launcher
from actors.kernels.limits.host_uids import has_own_uids
from actors.kernels.probes.bait import SECRET_VARIABLE, laid_out
from actors.kernels.probes.catalogue import PROBES
from actors.kernels.probes.probe import Family, Probe, ProbeOutcome
from actors.kernels.probes.run import PATIENCE, ProbeResult, probe_limits, run_probes
from common.config import Kernel
from common.errors import MachineError
from tests.timed_attacks import get_hold_of_something, never_end, take_twice_its_time

pytestmark = pytest.mark.sandbox
LEVELS = {"forked": "A-forked", "cold": "B-cold", "jupyter": "B-jupyter"}
POOLED = ("asyncio_", "uvloop_", "watchdog")
"""Threads of pools, which come as they are needed."""
MOST_GROWTH_BYTES = 48 << 20
QUICK = [probe for probe in PROBES if not probe.slow]
SURVIVED = [probe for probe in QUICK if not probe.lethal]
"""Only a forked kernel is replaced fast enough for the quick suite."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """What an attack could change about the process that runs the kernels."""

    descriptors: int
    threads: int
    memory_bytes: int
    name: str
    clock_offset_s: float

    @classmethod
    def look(cls) -> "Host":
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=sum(not t.name.startswith(POOLED) for t in threading.enumerate()),
            memory_bytes=pages * os.sysconf("SC_PAGESIZE"),
            name=socket.gethostname(),
            clock_offset_s=time.time() - time.monotonic(),
        )


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """All attacks at one level, and what they left."""

    results: list[ProbeResult]
    before: Host
    after: Host
    survivors: list[str]

    @property
    def wrong(self) -> list[str]:
        return [
            f"{result.probe.name}: {result.outcome} ({result.reason})"
            for result in self.results
            if not result.ok
        ]


def run_campaign(launcher_name: str, probes: list[Probe]) -> Campaign:
    limits = probe_limits(Kernel(launcher=launcher_name))
    if not has_own_uids(limits, launcher_name):
        probes = [probe for probe in probes if not probe.keeps]
    with (
        laid_out(limits) as bait,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        launcher = make_launcher(limits)
        try:
            runner.run(launcher.start())
        except MachineError as fault:
            pytest.skip(f"this machine has no {launcher_name} launcher: {fault}")
        try:
            runner.run(run_probes(launcher, QUICK[:1], bait))
            before = Host.look()
            results = runner.run(run_probes(launcher, probes, bait))
            after = look_when_closed(before.descriptors, deadline_s=2.0)
        finally:
            runner.run(launcher.close())
        survivors = processes_named(bait.target.token, deadline_s=2.0)
    return Campaign(results=results, before=before, after=after, survivors=survivors)


def look_when_closed(descriptors: int, *, deadline_s: float) -> Host:
    """Look once no more descriptors are open, at the latest at the deadline: ZeroMQ closes late."""
    deadline = time.monotonic() + deadline_s
    while (seen := Host.look()).descriptors > descriptors and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return seen


def processes_named(token: str, *, deadline_s: float) -> list[str]:
    """Processes that still carry ``token`` in their name at the deadline."""
    deadline = time.monotonic() + deadline_s
    while (found := _named(token)) and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return found


def _named(token: str) -> list[str]:
    names = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                names.append((folder / "comm").read_text().strip())
            except OSError:
                continue
    return [name for name in names if token in name]


@pytest.fixture(scope="module", params=["forked", "cold", "jupyter"])
def campaign(request: pytest.FixtureRequest) -> Campaign:
    return run_campaign(request.param, QUICK if request.param == "forked" else SURVIVED)


def test_every_attack_ends_as_it_must(campaign: Campaign) -> None:
    assert campaign.wrong == []
    assert len(campaign.results) >= sum(not probe.keeps for probe in SURVIVED)


def test_the_attacks_ran_at_the_level_they_are_counted_for(campaign: Campaign) -> None:
    assert {result.level for result in campaign.results} <= set(LEVELS.values())
    assert len({result.level for result in campaign.results}) == 1


def test_no_secret_of_the_actor_is_found(campaign: Campaign) -> None:
    assert SECRET_VARIABLE not in os.environ  # it was, while the attacks ran
    secrecy = [r for r in campaign.results if r.probe.family in (Family.SECRETS, Family.FILES)]

    assert {result.outcome for result in secrecy} == {ProbeOutcome.BLOCKED}
    assert not any("sk-bait" in result.reason for result in campaign.results)


def test_the_host_process_is_unharmed(campaign: Campaign) -> None:
    before, after = campaign.before, campaign.after

    assert (after.name, after.threads) == (before.name, before.threads)
    assert after.descriptors <= before.descriptors
    assert after.memory_bytes - before.memory_bytes < MOST_GROWTH_BYTES
    assert abs(after.clock_offset_s - before.clock_offset_s) < 1.0


def test_no_process_of_a_sandbox_is_left(campaign: Campaign) -> None:
    assert any(result.probe.name == "leave a daemon" for result in campaign.results)
    assert campaign.survivors == []


def test_an_attack_out_of_time_gets_one_more_try_and_one_that_succeeds_gets_none() -> None:
    late, endless, escaped = run_campaign(
        "forked", [take_twice_its_time, never_end, get_hold_of_something]
    ).results

    assert (late.outcome, late.probe.timeout_s) == (ProbeOutcome.BLOCKED, PATIENCE * 0.7)
    assert (endless.out_of_time, endless.probe.timeout_s) == (True, PATIENCE * 0.2)
    assert (escaped.outcome, escaped.probe.timeout_s) == (ProbeOutcome.ESCAPED, 10.0)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["forked", "cold", "jupyter"])
def test_every_attack_of_the_long_list_ends_as_it_must(name: str) -> None:
    long = [probe for probe in PROBES if probe.slow or (name != "forked" and probe.lethal)]

    assert run_campaign(name, long).wrong == []
