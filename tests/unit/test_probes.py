"""The attack list is complete, and its attacks can tell a sandbox from none."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from actors.kernels.probes.bait import laid_out
from actors.kernels.probes.catalogue import PROBES
from actors.kernels.probes.inside import Target
from actors.kernels.probes.probe import (
    LEVELS,
    Family,
    ProbeOutcome,
    attack,
    opening_cell,
    verdict_of,
)
from actors.kernels.probes.run import ProbeResult, probe_limits
from common.config import Kernel

CONTROLS = [probe for probe in PROBES if probe.control]
LIMITS = probe_limits(Kernel())


def test_every_family_has_attacks_with_names_of_their_own():
    names = [probe.name for probe in PROBES]

    assert {probe.family for probe in PROBES} == set(Family)
    assert len(set(names)) == len(names) >= 50


def test_no_attack_may_escape_or_be_broken_at_any_level():
    for probe in PROBES:
        for level in LEVELS:
            assert not probe.acceptable(level) & {ProbeOutcome.ESCAPED, ProbeOutcome.BROKEN}, (
                probe.name
            )


def test_harmless_attacks_come_before_those_that_kill_their_kernel():
    lethal = [probe.lethal for probe in PROBES]

    assert lethal == sorted(lethal)


def test_a_verdict_is_read_from_the_last_line_that_gives_one():
    assert verdict_of("blocked: no\nnoise\nESCAPED: 7: x\n") == (ProbeOutcome.ESCAPED, "7: x")
    assert verdict_of("nothing")[0] is ProbeOutcome.BROKEN


def test_an_outcome_that_a_level_does_not_expect_is_not_ok():
    probe = next(probe for probe in PROBES if probe.name == "hang up")
    result = ProbeResult(
        probe=probe, level="A-forked", outcome=ProbeOutcome.BLOCKED, reason="", seconds=0.0
    )

    assert not result.ok
    assert replace(result, level="B-jupyter").ok
    assert replace(result, outcome=ProbeOutcome.KILLED).ok


def test_only_what_did_not_come_to_its_end_is_out_of_time():
    probe = next(probe for probe in PROBES if probe.name == "overflow the stack")
    flood = next(probe for probe in PROBES if probe.name == "print without end")
    late = ProbeResult(
        probe=probe, level="A-forked", outcome=ProbeOutcome.TIMED_OUT, reason="", seconds=10.0
    )

    assert late.out_of_time
    assert not replace(late, outcome=ProbeOutcome.KILLED, deaf=True).out_of_time, "as it must end"
    assert not replace(late, outcome=ProbeOutcome.ESCAPED).out_of_time
    assert not replace(late, probe=flood).out_of_time, "a timeout is its expected end"
    assert replace(late, probe=PROBES[0], outcome=ProbeOutcome.KILLED, deaf=True).out_of_time
    assert not replace(late, probe=PROBES[0], outcome=ProbeOutcome.KILLED).out_of_time


@attack(Family.FILES)
def mistaken(target: Target) -> str:
    """Has a mistake in it."""
    return target.no_such_attribute  # type: ignore[attr-defined]


def test_a_mistake_in_an_attack_is_no_proof():
    with laid_out(LIMITS) as bait:
        output = _run_without_a_sandbox(opening_cell(bait.target) + mistaken.cell)

    assert verdict_of(output)[0] is ProbeOutcome.BROKEN


def test_servers_of_the_host_notice_who_reaches_them():
    reach = next(probe for probe in PROBES if "hosts localhost" in probe.name)
    with laid_out(LIMITS) as bait:
        assert bait.taken() == []

        _run_without_a_sandbox(opening_cell(bait.target) + reach.cell)

        assert bait.taken() == [f"('127.0.0.1', {bait.target.tcp_port})"]


def test_baits_are_cleared_away():
    with laid_out(LIMITS) as bait:
        assert os.path.exists(bait.target.file)

    assert not os.path.exists(bait.target.file)
    assert not os.path.exists(f"/dev/shm/{bait.target.posix_memory}")
    assert not os.path.exists(f"/proc/{bait.target.pid}")


@pytest.mark.skipif(os.geteuid() != 0, reason="many attacks need root to succeed")
def test_without_a_sandbox_the_attacks_escape():
    with laid_out(LIMITS) as bait:
        parts = [f"print({probe.name!r})\n{probe.cell}" for probe in CONTROLS]
        program = opening_cell(replace(bait.target, victim_pid=bait.target.pid))
        program += f"for part in json.loads({json.dumps(json.dumps(parts))}):\n"
        program += "    exec(part, globals())\n"

        output = _run_without_a_sandbox(program)

    verdicts = dict(zip(*[iter(output.splitlines())] * 2, strict=True))
    blocked = {name: text for name, text in verdicts.items() if not text.startswith("ESCAPED")}
    assert set(verdicts) == {probe.name for probe in CONTROLS}
    assert not any(text.startswith("broken") for text in blocked.values()), blocked
    assert set(blocked) <= UNAVAILABLE_ON_SOME_HOSTS, blocked


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/usr/bin/python3"),
    reason="needs root, to become somebody else, and a Python that everybody can run",
)
def test_setuid_programs_give_an_ordinary_user_more_without_a_sandbox():
    probe = next(probe for probe in PROBES if probe.name == "gain by setuid programs")
    somebody = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups", "--"]
    with laid_out(LIMITS) as bait:
        program = opening_cell(bait.target) + probe.cell

        done = subprocess.run(
            [*somebody, "/usr/bin/python3", "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )

    assert verdict_of(done.stdout)[0] is ProbeOutcome.ESCAPED


NEED_ROOT = [
    "make a disk device",
    "change the network configuration",
    "make ipc objects",
    "mount things",
    "use the new mount calls",
    "unmount what covers the host",
    "become root",
    "raise its own limits",
    "type into a terminal",
    "administer the machine",
    "set clock and names",
]
DISPOSABLE = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork"]
DISPOSABLE += ["--mount-proc", "setsid", "-w"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("name", NEED_ROOT)
def test_attacks_that_need_root_escape_as_root_of_disposable_namespaces(name):
    probe = next(probe for probe in PROBES if probe.name == name)
    with laid_out(LIMITS) as bait:
        program = opening_cell(bait.target) + probe.cell

        done = subprocess.run(
            [*DISPOSABLE, sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    if "unshare failed" in done.stderr:
        pytest.skip("this machine denies namespaces even to root")
    assert verdict_of(done.stdout)[0] is ProbeOutcome.ESCAPED, done.stderr


UNAVAILABLE_ON_SOME_HOSTS = {
    "press the magic key",
    "escape the oom killer",
    "use io uring",
    "load bpf",
    "watch by perf",
    "handle page faults",
    "use keyrings",
    "open kernel memory",
    "talk to the hypervisor",
    "open disks and memory devices",
    "open a file by its handle",
    "see network interfaces of the host",
    "grow the buffers of sockets",
}


def _run_without_a_sandbox(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout
