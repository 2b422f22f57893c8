"""What the processes of a sandbox use, as /proc of the host tells it. Field numbers: proc(5)."""

import os
from dataclasses import dataclass
from functools import cache

from actors.kernels.sandboxed.isolation import TCP_BUFFER_BYTES

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_READ_BYTES = 1 << 16
_FOLDERS = ("/workspace", "/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
_MOST_PROCESSES = 4096
_TRIES = 3
"""Threads may end while they are looked at."""


@dataclass(slots=True)
class TreeUse:
    """What a process and its descendants use, cheaply read.

    Attributes:
        pids: all of them.
        cpu_s: CPU seconds, also of descendants that ended and were waited for.
        resident_bytes: sum over processes; pages that they share count for each.
        grown_bytes: address space beyond that of the first process, summed.
    """

    pids: list[int]
    cpu_s: float = 0.0
    resident_bytes: int = 0
    grown_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FilesUse:
    """What lies in the sandbox's private folders: bytes of all, files of the fullest."""

    size_bytes: int = 0
    most_files: int = 0


def host_pid(pidfd: int) -> int:
    """Pid of the process behind ``pidfd`` as this process sees it; -1 when it is gone."""
    for line in read(f"/proc/self/fdinfo/{pidfd}").splitlines():
        if line.startswith(b"Pid:"):
            return int(line[4:])
    return -1


def tree_use(root: int) -> TreeUse:
    """Add up the processes below ``root``; those that end meanwhile are skipped."""
    use, base, waiting = TreeUse([]), 0, [root]
    while waiting and len(use.pids) < _MOST_PROCESSES:
        pid = waiting.pop()
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        if not fields:
            continue
        threads = int(fields[17])
        size, resident = map(int, fields[20:22])
        if not size and threads > 1:
            size, resident = _memory_of_a_thread(pid)
        base = base or size
        use.pids.append(pid)
        use.cpu_s += sum(map(int, fields[11:15])) / _TICKS_PER_S
        use.resident_bytes += resident * _PAGE_BYTES
        use.grown_bytes += max(0, size - base)
        waiting += _children(pid, threads=threads)
    return use


def threads_of(pid: int) -> list[int]:
    """Its threads, the youngest first: when the main thread has ended, they have the memory."""
    return sorted(map(int, _names(f"/proc/{pid}/task")), reverse=True)


def _memory_of_a_thread(pid: int) -> tuple[int, int]:
    """Address space in bytes and resident pages, which the main thread no longer tells."""
    for _ in range(_TRIES):
        for thread in threads_of(pid):
            fields = read(f"/proc/{pid}/task/{thread}/stat").rpartition(b")")[2].split()
            if fields and int(fields[20]):
                return int(fields[20]), int(fields[21])
    return 0, 0


def files_use(root: int) -> FilesUse:
    """What the private folders of the sandbox of ``root`` hold; zero where we may not look."""
    size = most = 0
    for folder in _FOLDERS:
        try:
            found = os.statvfs(f"/proc/{root}/root{folder}")
        except OSError:
            continue
        size += (found.f_blocks - found.f_bfree) * found.f_frsize
        most = max(most, found.f_files - found.f_ffree)
    return FilesUse(size, most)


def sockets_bytes(root: int) -> int:
    """What the sockets of the sandbox of ``root`` can hold, full or not: nothing counts that.

    Their number is that of its network namespace, so those on the way between processes and those
    that are closed but not yet emptied are among them.
    """
    first = read(f"/proc/{root}/net/sockstat").partition(b"\n")[0]
    words = first.split()
    return int(words[2]) * _bytes_of_a_socket() if words[:2] == [b"sockets:", b"used"] else 0


@cache
def _bytes_of_a_socket() -> int:
    """Both of its buffers, which grow no further in a sandbox than this."""
    paths = ("/proc/sys/net/core/rmem_default", "/proc/sys/net/core/wmem_default")
    return max(2 * TCP_BUFFER_BYTES, sum(int(read(path) or 0) for path in paths))


def _children(pid: int, *, threads: int) -> list[int]:
    tasks = [str(pid)] if threads == 1 else _names(f"/proc/{pid}/task")
    return [
        int(child) for task in tasks for child in read(f"/proc/{pid}/task/{task}/children").split()
    ]


def _names(folder: str) -> list[str]:
    """What is in a folder; nothing when it is gone or denied."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read(path: str) -> bytes:
    """The whole file; empty when it is gone or denied."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        pieces = []
        while piece := os.read(handle, _READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    except OSError:
        return b""
    finally:
        os.close(handle)
