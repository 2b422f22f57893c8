"""Attacks that hide what they use from who counts it."""

import ctypes
import os
import signal
import threading
import time

from actors.kernels.probes.inside import LIBC, Target
from actors.kernels.probes.probe import Family, ProbeOutcome, attack


@attack(Family.RESOURCES, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED, timeout_s=20)
def hoard_behind_dead_main_threads(target: Target) -> str:
    """Holds memory in threads whose main thread has ended, of which /proc says nothing."""
    ours, theirs = os.pipe()
    size = target.memory_mib // 2 << 20
    children: list[int] = []

    def hold() -> None:
        hoard = bytearray(size)
        hoard[::4096] = bytes([1]) * len(range(0, size, 4096))
        os.write(theirs, b"held")
        time.sleep(30)
        os._exit(0)

    for _ in range(6):
        pid = os.fork()
        if pid == 0:
            threading.Thread(target=hold).start()
            LIBC.pthread_exit(None)
        children.append(pid)
    time.sleep(2)
    os.set_blocking(ours, False)
    held = len(os.read(ours, 100)) // 4
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    too_much = held * size >> 20 > target.sandbox_memory_mib
    return f"{held * size >> 20} MiB in {held} processes" if too_much else ""


@attack(Family.RESOURCES, ProbeOutcome.BLOCKED, ProbeOutcome.KILLED, timeout_s=20)
def make_itself_dear_to_measure(target: Target) -> str:
    """Makes so many mappings that looking at its memory takes seconds, in which nobody looks."""
    LIBC.mmap.restype = ctypes.c_void_p
    size, count = 62_000 * 4096, 6
    ours, theirs = os.pipe()
    children: list[int] = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            start = LIBC.mmap(None, ctypes.c_size_t(size), 0, 0x22, -1, 0)
            for offset in range(0, size, 8192):
                LIBC.mprotect(ctypes.c_void_p(start + offset), ctypes.c_size_t(4096), 1)
            os.write(theirs, b"made")
            time.sleep(30)
            os._exit(0)
        children.append(pid)
    for _ in children:
        os.read(ours, 4)
    time.sleep(2)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return f"62,000 mappings in each of {count} processes"
