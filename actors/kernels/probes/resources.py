"""Attacks on the machine's resources; every one gives up by itself before it could hurt a host.

An attack escapes if it gets well beyond a limit of the sandbox.
"""

import contextlib
import mmap
import os
import signal
import threading
import time

from actors.kernels.probes.inside import Target
from actors.kernels.probes.probe import Family, ProbeOutcome, attack


@attack(Family.RESOURCES)
def fork_without_end(target: Target) -> str:
    """Forks processes that stay."""
    children: list[int] = []
    try:
        while len(children) < 2 * target.processes:
            pid = os.fork()
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            children.append(pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"{len(children)} processes"


@attack(Family.RESOURCES)
def start_threads_without_end(target: Target) -> str:
    """Starts threads that stay."""
    stop = threading.Event()
    threads: list[threading.Thread] = []
    try:
        while len(threads) < 2 * target.processes:
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        return ""
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return f"{len(threads)} threads"


@attack(Family.RESOURCES)
def allocate_a_huge_list(target: Target) -> str:
    """Allocates twice the limit of a process, untouched and touched."""
    size = 2 * target.memory_mib << 20
    with contextlib.suppress(MemoryError):
        return f"{len(bytes(size)) >> 20} MiB"
    hoard: list[bytes] = []
    while len(hoard) < 2 * target.memory_mib:
        hoard.append(b"x" * (1 << 20))
    return f"{len(hoard)} MiB in pieces"


@attack(Family.RESOURCES)
def map_shared_memory_beyond_the_limit(target: Target) -> str:
    """Maps anonymous MAP_SHARED memory, which the limit of data does not count."""
    size = 8 * target.memory_mib << 20
    with mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS):
        return f"{size >> 20} MiB"


@attack(Family.RESOURCES)
def take_every_terminal(target: Target) -> str:
    """Opens pseudo-terminals, of which Linux has a fixed number for the whole machine."""
    handles: list[int] = []
    try:
        while len(handles) < 64:
            handles += os.openpty()
    finally:
        for handle in handles:
            os.close(handle)
    return f"{len(handles) // 2} terminals"


@attack(Family.RESOURCES, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED, timeout_s=20)
def hoard_memory_in_many_processes(target: Target) -> str:
    """Lets each of many processes touch half of what one may, and hold it."""
    size = target.memory_mib // 2 << 20
    count = 6
    held = 0
    ours, theirs = os.pipe()
    children: list[int] = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                hoard = bytearray(size)
                for offset in range(0, size, 4096):
                    hoard[offset] = 1
                os.write(theirs, b"held")
                time.sleep(30)
            finally:
                os._exit(0)
        children.append(pid)
    time.sleep(1.5)
    os.set_blocking(ours, False)
    with contextlib.suppress(BlockingIOError):
        held = len(os.read(ours, 4 * count)) // 4
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    too_much = held * size >> 20 > target.sandbox_memory_mib
    return f"{held * size >> 20} MiB in {held} processes" if too_much else ""


@attack(Family.RESOURCES, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED)
def hoard_shared_mappings(target: Target) -> str:
    """Touches MAP_SHARED memory within the address space limit, and holds it."""
    pieces: list[mmap.mmap] = []
    size = 64 << 20
    try:
        while len(pieces) * 64 < 3 * target.memory_mib:
            piece = mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
            pieces.append(piece)
            for offset in range(0, size, 4096):
                piece[offset] = 1
        time.sleep(1.5)
    finally:
        for piece in pieces:
            piece.close()
    return f"{len(pieces) * 64} MiB"


@attack(Family.RESOURCES)
def fill_the_disk(target: Target) -> str:
    """Writes to /workspace, /tmp and /dev/shm until there is no room."""
    filled = []
    block = bytes(1 << 20)
    for folder in ("/workspace", "/tmp", "/dev/shm"):
        written, paths = 0, []
        try:
            for number in range(8):
                paths.append(f"{folder}/fill-{number}-{target.token}")
                with contextlib.suppress(OSError), open(paths[-1], "wb", buffering=0) as file:
                    while written < 3 * target.workspace_mib:
                        written += file.write(block) >> 20
        finally:
            for path in paths:
                with contextlib.suppress(OSError):
                    os.remove(path)
        if written > target.workspace_mib + 16:
            filled.append(f"{written} MiB in {folder}")
    return ", ".join(filled)


@attack(Family.RESOURCES)
def use_up_inodes(target: Target) -> str:
    """Makes empty files without end, and keeps them for a while."""
    made = []
    for folder in ("/workspace", "/tmp"):
        here, count = f"{folder}/inodes-{target.token}", 0
        os.mkdir(here)
        with contextlib.suppress(OSError):
            while count <= 2 * target.inodes:
                os.close(os.open(f"{here}/{count}", os.O_WRONLY | os.O_CREAT))
                count += 1
        if count > target.inodes:
            made.append(f"{count} files in {folder}")
        for name in range(count):
            os.remove(f"{here}/{name}")
        os.rmdir(here)
    return ", ".join(made)


@attack(Family.RESOURCES)
def open_files_without_end(target: Target) -> str:
    """Opens more files than it may."""
    opened: list[int] = []
    try:
        while len(opened) <= 2 * target.open_files:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for handle in opened:
            os.close(handle)
    return f"{len(opened)} open files"
