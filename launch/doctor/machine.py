"""What ``lzero doctor`` asks of the machine: system, limits, disk, sockets, control groups."""

import contextlib
import os
import platform
import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from actors.kernels.limits.cgroup import CageLimits, Cages, NoCgroupError, own_cgroup
from actors.kernels.limits.id_ranges import IdRange, NoHostUidsError, find_source
from actors.kernels.limits.user_namespaces import zygote_namespace
from common.child_process import SOURCE_ROOT
from common.config import Config
from common.errors import MachineError
from launch.doctor.findings import Finding, failure, fine, warning
from launch.run.preflight import check_listening
from launch.starters.specs import own_network_works
from learner.engine.host_memory import host_memory

_OLDEST_LINUX = (5, 14)
"""RLIMIT_NPROC counts per user namespace since then."""
_OLDEST_BUBBLEWRAP = (0, 8)
_DESCRIPTORS_PER_KERNEL = 8
_DESCRIPTORS_BESIDES = 256
_PROCESSES_PER_KERNEL = 3
_LEAST_DISK_GIB = 1.0
_GOOD_DISK_GIB = 10.0
_LEAST_MEMORY_GIB = 4.0
_GIB = 1 << 30
_NAMESPACES = ("user", "mnt", "pid", "ipc", "uts", "net")


def check_system(_config: Config) -> Iterator[Finding]:
    """Linux, its processors and its memory."""
    release = platform.release()
    found = f"{platform.system()} {release}, {os.cpu_count()} cores, {platform.machine()}"
    if platform.system() != "Linux":
        yield failure("system", found, "use Linux; the sandbox is made of its namespaces")
        return
    if version_in(release) < _OLDEST_LINUX:
        fix = "use Linux 5.14 or newer: before, a fork bomb in one sandbox stops the others"
        yield warning("system", found, fix)
    else:
        yield fine("system", found)
    memory = host_memory()
    free = memory.available / _GIB
    found = f"{free:.1f} of {memory.total / _GIB:.1f} GiB free"
    if free < _LEAST_MEMORY_GIB:
        fix = f"free {_LEAST_MEMORY_GIB:.0f} GiB, or train a smaller model"
        yield warning("memory", found, fix)
    else:
        yield fine("memory", found)


def check_limits(config: Config) -> Iterator[Finding]:
    """Open files, processes and namespaces, for as many kernels as there will be."""
    kernels = config.actors.episodes + config.kernel.idle
    for name, which, need, flag in (
        (
            "open files",
            resource.RLIMIT_NOFILE,
            kernels * _DESCRIPTORS_PER_KERNEL + _DESCRIPTORS_BESIDES,
            "-n",
        ),
        ("processes", resource.RLIMIT_NPROC, kernels * _PROCESSES_PER_KERNEL, "-u"),
    ):
        soft, hard = resource.getrlimit(which)
        found = f"limit {_limit(soft)}, {kernels} kernels need about {need}"
        if soft != resource.RLIM_INFINITY and soft < need:
            how = f"ulimit {flag} {need}" if hard >= need or hard < 0 else "limits.conf, as root"
            yield warning(name, found, f"raise it ({how}), or lower actors.episodes")
        else:
            yield fine(name, found)
    yield _check_namespaces(kernels)


def _check_namespaces(kernels: int) -> Finding:
    counts = {}
    for name in _NAMESPACES:
        with contextlib.suppress(OSError):
            counts[name] = int(Path(f"/proc/sys/user/max_{name}_namespaces").read_text())
    low = {name: count for name, count in counts.items() if count < 2 * kernels}
    if low:
        names = ", ".join(f"{name} {count}" for name, count in low.items())
        fix = "; ".join(f"sysctl user.max_{name}_namespaces=15000" for name in low)
        return failure("namespaces", f"too few for {kernels} kernels: {names}", fix)
    return fine("namespaces", f"at least {min(counts.values(), default=0)} of each kind")


def check_clock(_config: Config) -> Iterator[Finding]:
    """The clock is not behind the files of this installation, and it runs."""
    newest = max(file.stat().st_mtime for file in (SOURCE_ROOT / "launch").rglob("*.py"))
    before = time.monotonic()
    ahead = newest - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if ahead > 60 or time.monotonic() < before:
        yield warning("clock", f"{now}, behind this installation by {ahead:.0f} s", "set the clock")
    else:
        yield fine("clock", now)


def check_disk(config: Config) -> Iterator[Finding]:
    """The folder of runs takes a file, and has room for checkpoints."""
    folder = Path(config.run.folder).expanduser().resolve()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        _write_something(existing)
    except OSError as error:
        fix = "make it writable, or set run.folder to a folder that is"
        yield failure("run folder", f"{existing} takes no file: {error.strerror}", fix)
        return
    free = shutil.disk_usage(existing).free / _GIB
    found = f"{folder}, {free:.1f} GiB free"
    if free < _LEAST_DISK_GIB:
        yield failure("run folder", found, "free some space, or set run.folder to another disk")
    elif free < _GOOD_DISK_GIB:
        yield warning("run folder", found, "checkpoints of large models will not fit")
    else:
        yield fine("run folder", found)


def _write_something(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lzero-doctor-") as file:
        file.write(bytes(1 << 20))
        file.flush()
        os.fsync(file.fileno())


def check_sockets(config: Config) -> Iterator[Finding]:
    """The coordinator of a run can listen, with keys; and what else listens can be hidden."""
    try:
        yield fine("sockets", f"a coordinator can listen at {check_listening(config)}")
    except MachineError as fault:
        yield failure("sockets", str(fault), "choose another transport.listen, or leave it empty")
    if own_network_works():
        yield fine("own network", "policy server and learner reach only their own ports")
    else:
        yield warning(
            "own network",
            "other users of the machine reach ports that torch and vLLM open on it",
            "allow user namespaces (sysctl user.max_user_namespaces, AppArmor), or train alone",
        )


def check_bubblewrap(_config: Config) -> Iterator[Finding]:
    """Bubblewrap, and what starts it with fewer rights."""
    program = shutil.which("bwrap")
    if program is None:
        yield failure("bubblewrap", "bwrap is not on the PATH", "apt-get install bubblewrap")
    else:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        found = f"{output.stdout.strip() or output.stderr.strip()} ({program})"
        if version_in(output.stdout) < _OLDEST_BUBBLEWRAP:
            yield warning("bubblewrap", found, "install version 0.8 or newer")
        else:
            yield fine("bubblewrap", found)
    for name in ("choom", "setpriv") if os.geteuid() == 0 else ("choom",):
        if shutil.which(name) is None:
            yield failure(name, "not on the PATH", "apt-get install util-linux")


def check_control_groups(config: Config) -> Iterator[Finding]:
    """Whether kernels get control groups, or the watchdog watches alone; both bound memory."""
    kernel = config.kernel
    limits = CageLimits(sandbox_memory_mib=kernel.sandbox_memory_mib, processes=kernel.processes)
    try:
        cages = Cages(Path(kernel.cgroup) if kernel.cgroup else own_cgroup(), limits)
    except NoCgroupError as reason:
        found = f"none for kernels, a watchdog bounds their memory ({reason})"
        if kernel.cgroup:
            yield warning("control groups", found, "correct kernel.cgroup, or leave it empty")
        else:
            yield fine("control groups", found)
    else:
        cages.close()
        yield fine("control groups", "cgroup v2 is writable: one group per kernel")
    if os.path.exists("/dev/vsock"):
        yield fine("vsock", "present on this machine; kernels are refused it (see attacks)")


def check_user_ids(config: Config) -> Iterator[Finding]:
    """Whether each kernel can have a user id of the host to itself."""
    kernel = config.kernel
    kernels = (config.actors.episodes + kernel.idle) * config.actors.processes
    try:
        source = find_source(IdRange(kernel.first_uid, kernel.uids))
        with zygote_namespace(source):
            found = f"one for each kernel, of {source.ids}"
    except NoHostUidsError as reason:
        shared = "kernels share one, and can use up for each other what Linux counts per user"
        yield warning("user ids", f"{shared}: {reason}", reason.fix)
        return
    if source.ids.count < 2 * kernels:
        fix = "raise kernel.uids" if not source.subordinate else "add subordinate ids"
        few = f"less than two for each of the {kernels} kernels that can live at once"
        yield warning("user ids", f"{found}, {few}: those that end keep theirs for a while", fix)
    elif source.subordinate:
        yield fine("user ids", f"{found}, with kernel.launcher = 'forked'; others share ours")
    else:
        yield fine("user ids", found)


def version_in(text: str) -> tuple[int, int]:
    """The first ``number.number`` in ``text``; (0, 0) if there is none."""
    match = re.search(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _limit(value: int) -> str:
    return "none" if value == resource.RLIM_INFINITY else str(value)
