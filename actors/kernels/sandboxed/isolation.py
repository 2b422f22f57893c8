"""Linux isolation of one sandbox: namespaces, capabilities, rlimits; see ``mounts`` for files.

All through ctypes, because Python 3.11 lacks ``os.unshare``. The caller must be a single thread
that already lives in an outer bubblewrap sandbox.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from actors.kernels.sandboxed import seccomp

TCP_BUFFER_BYTES = 1 << 18
"""The largest buffer of a TCP socket in a sandbox, one for each direction."""
_BACKLOG = 128
"""Connections to one socket that nobody has accepted yet."""
SANDBOX_UID = 1000
"""User id inside every sandbox."""

_NEW_NAMESPACES = (
    0x00020000  # mount
    | 0x04000000  # uts
    | 0x08000000  # ipc
    | 0x10000000  # user
    | 0x20000000  # pid
    | 0x40000000  # net
)
_CLONE_PIDFD = 0x00001000
_CLONE_NUMBER = {"x86_64": 56, "aarch64": 220}
_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_PENDING_SIGNALS = 1024
"""Far below what the zygote's namespace may have, in which all forks count together."""

libc = ctypes.CDLL(None, use_errno=True)
_libc_holding_gil = ctypes.PyDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Resource limits of one sandbox; sizes in MiB.

    Attributes:
        processes: with threads, in the user namespace; 0 for no limit.
        inodes: files and folders in each of /tmp, /workspace and /dev/shm.
        cpu_s: CPU time of each process; 0 for no limit.
    """

    memory_mib: int
    workspace_mib: int
    processes: int
    inodes: int = 16384
    cpu_s: int = 0
    file_mib: int = 64
    open_files: int = 256


def clone_isolated() -> tuple[int, int]:
    """Fork into new user, mount, pid, ipc, uts and net namespaces.

    The child is pid 1 of its namespaces. It is made by the bare system call, so it must not start
    threads; its own ``os.fork`` children are ordinary processes.

    Returns:
        (pid, pidfd) in the parent, (0, -1) in the child.

    Raises:
        OSError: the kernel denied the namespaces.
    """
    pidfd = ctypes.c_int(-1)
    flags = _NEW_NAMESPACES | _CLONE_PIDFD | signal.SIGCHLD
    number = _CLONE_NUMBER[platform.machine()]
    zero = ctypes.c_ulong(0)
    pid = _libc_holding_gil.syscall(
        ctypes.c_long(number), ctypes.c_ulong(flags), zero, ctypes.byref(pidfd), zero, zero
    )
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone into new namespaces was denied")
    return pid, pidfd.value if pid else -1


@contextlib.contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Have this user and group id outside, for the block: what is forked in it keeps it.

    Needs CAP_SETUID and CAP_SETGID in a user namespace that maps ``uid``.
    """
    try:
        os.setresgid(uid, uid, SANDBOX_UID)
        os.setresuid(uid, uid, SANDBOX_UID)
        yield
    finally:
        os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
        os.setresgid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Have the system send this process ``number`` when the one that started it ends."""
    libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def map_user(outside: int = SANDBOX_UID) -> None:
    """Be uid and gid 1000 in the new user namespace, and forbid further user namespaces.

    Args:
        outside: our user id in the namespace around it.
    """
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # or, after acting_as, /proc/self is not ours
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{SANDBOX_UID} {outside} 1")
    _write("/proc/self/gid_map", f"{SANDBOX_UID} {outside} 1")
    os.setresgid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    forbid_user_namespaces()


def forbid_user_namespaces() -> None:
    """Allow none below this one; the private /proc no longer has the setting."""
    _write("/proc/sys/user/max_user_namespaces", "0")


def bound_network_buffers() -> None:
    """Let no TCP socket of this network namespace grow its buffers by itself, and bound backlogs.

    Without that all sandboxes together could use up what the machine has for TCP, and one process
    could fill thousands of sockets that need no descriptor, as they wait to be accepted. Needs the
    /proc of the outer sandbox, where Linux before 6.0 hides the setting of backlogs.
    """
    for name in ("tcp_rmem", "tcp_wmem"):
        _write(f"/proc/sys/net/ipv4/{name}", f"4096 65536 {TCP_BUFFER_BYTES}")
    with contextlib.suppress(FileNotFoundError):
        _write("/proc/sys/net/core/somaxconn", str(_BACKLOG))


def raise_loopback() -> None:
    """Bring up ``lo`` of the empty network namespace, for servers inside the sandbox."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING)
        fcntl.ioctl(handle, _SIOCSIFFLAGS, request)


def drop_capabilities() -> None:
    """Give up every capability, for this process and whatever it may execute."""
    for capability in range(64):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    check(libc.capset(header, struct.pack("6I", 0, 0, 0, 0, 0, 0)), "capset")
    check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def open_output() -> int:
    """The memory file for what processes write to 1 and 2; seccomp forbids it later."""
    output = os.memfd_create("output")
    fcntl.fcntl(output, fcntl.F_SETFL, os.O_APPEND)
    return output


def limit_resources(limits: Limits) -> None:
    """Set the rlimits of this process and its descendants, but for that of open files.

    RLIMIT_DATA bounds what a process allocates; RLIMIT_AS, four times as high, catches shared
    mappings that RLIMIT_DATA does not count. RLIMIT_NPROC counts per user namespace (Linux 5.14).
    Without RLIMIT_MEMLOCK sockets cannot hold on to memory of a process that unmapped it.
    """
    mib = 1 << 20
    if limits.cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 2))
    if limits.processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes, limits.processes))
    for which, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_SIGPENDING, _PENDING_SIGNALS),
        (resource.RLIMIT_FSIZE, limits.file_mib * mib),
        (resource.RLIMIT_DATA, limits.memory_mib * mib),
        (resource.RLIMIT_AS, 4 * limits.memory_mib * mib),
    ):
        resource.setrlimit(which, (value, value))


def limit_open_files(limits: Limits) -> None:
    """Set the last rlimit, in pid 1 only once it has sent what it has to send.

    Linux lets nobody send descriptors whose user has more of them in flight than this limit.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits.open_files, limits.open_files))


def isolate(limits: Limits, program: bytes) -> None:
    """As pid 1 of new namespaces, give up everything but what ``limits`` and ``program`` allow.

    Args:
        limits: the rlimits.
        program: seccomp filter, from ``seccomp.deny_list``.
    """
    raise_loopback()
    drop_capabilities()
    limit_resources(limits)
    seccomp.load(program)


def reap_until(kernel: int, last_word: Callable[[int], None]) -> NoReturn:
    """As pid 1, collect orphans until ``kernel`` ends; the whole sandbox ends with pid 1.

    Args:
        kernel: pid of a child.
        last_word: called with the kernel's exit code, or minus the signal that killed it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # so that it is without effect from inside
    while True:
        pid, status = os.wait()
        if pid == kernel:
            last_word(os.waitstatus_to_exitcode(status))
            os._exit(0)


def hide_from_the_sandbox() -> None:
    """As pid 1, let no process inside read or write this one's memory, files and folders.

    The host may: its user owns the user namespace. Without a sandbox nothing changes.
    """
    if os.getpid() == 1:
        check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "not dumpable")


def close_from(lowest: int) -> None:
    """Close every file descriptor from ``lowest`` on."""
    os.closerange(lowest, 1 << 20)


def check(result: int, what: str) -> None:
    """Raise the error of a C call that failed, after ``what``."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
