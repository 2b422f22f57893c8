"""Each kernel has a user id of the host to itself, at every launcher."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from actors.kernels.bubblewrap import HOST_UID
from actors.kernels.forked.launcher import ForkedLauncher
from actors.kernels.launchers import make_launcher
from actors.kernels.limits.procfs import tree_use
from actors.kernels.probes.bait import laid_out
from actors.kernels.probes.catalogue import PROBES
from actors.kernels.probes.probe import ProbeOutcome
from actors.kernels.probes.run import probe_limits, run_probes
from common.config import Kernel

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives user ids away"),
]
CONFIG = {"preload_numpy": False, "grace_s": 0.5}
CELL = """
import os, pwd, subprocess, sys
assert pwd.getpwuid(os.getuid()).pw_name == "agent"
for folder in ("/workspace", "/tmp", "/dev/shm"):
    with open(f"{folder}/kept", "x") as file:
        file.write("x")
assert not subprocess.run([sys.executable, "-c", "import json"]).returncode
assert os.path.samefile("/proc/self/fd/0", "/dev/null")
os.getresuid() + os.getresgid() + (os.stat("/workspace").st_uid, os.stat("/proc/self").st_uid)
"""


@pytest.fixture(scope="module", params=["forked", "cold", "jupyter"])
def launcher(request, loop_runner):
    made = make_launcher(Kernel(launcher=request.param, **CONFIG))
    loop_runner.run(made.start())
    yield made
    loop_runner.run(made.close())


def ids_of(kernel):
    """Real, effective, saved and file system ids of every process of a kernel."""
    found = set()
    for pid in tree_use(pid_of(kernel)).pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("Uid:", "Gid:")):
                found |= set(line.split()[1:])
    return {int(number) for number in found}


def pid_of(kernel):
    return kernel._wardens.watchdog._records[kernel.kernel_id].kernel.pid


def test_every_kernel_is_somebody_else_on_the_host_and_the_same_inside(launcher, loop_runner):
    async def scenario():
        kernels = [await launcher.launch() for _ in range(2)]
        shown = [await kernel.execute(CELL, timeout_s=20) for kernel in kernels]
        ids = [ids_of(kernel) for kernel in kernels]
        await asyncio.gather(*(kernel.close() for kernel in kernels))
        return [result.output for result in shown], ids

    outputs, ids = loop_runner.run(scenario())

    assert outputs == [f"{(1000,) * 8}\n"] * 2
    assert [len(one) for one in ids] == [1, 1]
    assert ids[0] != ids[1]
    default = Kernel()
    own = range(default.first_uid, default.first_uid + default.uids)
    assert all(number in own for one in ids for number in one)


def test_an_id_is_free_again_when_its_kernel_is_gone(loop_runner):
    """With one id for all, kernels can only come one after the other."""

    async def scenario():
        made = make_launcher(Kernel(launcher="forked", first_uid=1_899_100_000, uids=3, **CONFIG))
        await made.start()
        try:
            outputs = []
            for code in ("1 + 1", "import os; os._exit(1)", "2 + 2"):
                kernel = await made.launch()
                result = await asyncio.gather(
                    kernel.execute(code, timeout_s=10), return_exceptions=True
                )
                outputs.append(getattr(result[0], "output", "died"))
                await kernel.close()
            return outputs
        finally:
            await made.close()

    assert loop_runner.run(scenario()) == ["2\n", "died", "4\n"]


def test_where_the_ids_cannot_be_mapped_kernels_share_one(loop_runner, caplog):
    """The range passes every check, and Linux refuses it all the same."""

    async def scenario():
        made = ForkedLauncher(Kernel(launcher="forked", **CONFIG))
        uids = made._wardens.uids
        uids._source = replace(uids.source, inner_root=uids.source.ids.first)
        await made.start()
        try:
            kernel = await made.launch()
            output = (await kernel.execute("6 * 7", timeout_s=10)).output
            ids = ids_of(kernel)
            await kernel.close()
            return output, ids
        finally:
            await made.close()

    assert loop_runner.run(scenario()) == ("42\n", {HOST_UID})
    assert "kernels share one user id of the host: user ids could not be mapped" in caplog.text


IN_FLIGHT = """
import array, os, socket
kept, nulls = [], array.array("i", [os.open("/dev/null", os.O_RDONLY)] * 250)
try:
    while len(kept) < 8:
        kept.append(socket.socketpair())
        kept[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, nulls)])
except OSError as error:
    print(error.strerror[:19])
"""


@pytest.mark.parametrize(
    "name",
    ["forked", *(pytest.param(name, marks=pytest.mark.nightly) for name in ("cold", "jupyter"))],
)
def test_kernels_start_even_where_all_share_one_id_and_one_fills_its_sockets(
    loop_runner, name, caplog
):
    async def scenario():
        made = make_launcher(Kernel(launcher=name, first_uid=1, **CONFIG))
        await made.start()
        try:
            attacker = await made.launch()
            output = (await attacker.execute(IN_FLIGHT, timeout_s=10)).output
            other = await made.launch()
            other_output = (await other.execute("6 * 7", timeout_s=10)).output
            await asyncio.gather(attacker.close(), other.close())
            return output, other_output
        finally:
            await made.close()

    assert loop_runner.run(scenario()) == ("Too many references\n", "42\n")
    assert caplog.text.count("kernels share one user id of the host") <= 1


def attacked(runner, config):
    """How the attacks end that keep what is counted per user."""
    keeping = [probe for probe in PROBES if probe.keeps]

    async def scenario(launcher, bait):
        await launcher.start()
        try:
            return await run_probes(launcher, keeping, bait)
        finally:
            await launcher.close()

    limits = probe_limits(config)
    with laid_out(limits) as bait:
        results = runner.run(scenario(make_launcher(limits), bait))
    return {result.probe.function: (result.outcome, result.reason) for result in results}


def test_what_is_counted_per_user_would_be_missed_by_kernels_with_one_id(loop_runner):
    """The attacks are attacks: without ids of their own, kernels take from each other."""
    found = attacked(loop_runner, Kernel(launcher="forked", first_uid=1))

    assert found["keep_descriptors_in_flight"] == (
        ProbeOutcome.ESCAPED,
        "the sibling lacks descriptors in flight (ETOOMANYREFS)",
    )
    outcome, reason = found["keep_everything_else_that_is_counted_per_user"]
    assert (outcome, "pages for pipes" in reason) == (ProbeOutcome.ESCAPED, True)
