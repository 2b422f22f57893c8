"""Runs one command and sees to it that nothing of it outlives the supervisor.

The guard is the *subreaper* of everything below it (``prctl(2)``): a process whose own parent ends
becomes a child of the guard, whatever session it moved to, so that the guard can find and end all
of them. It ends them when its standard input closes (the supervisor wants the end, or is gone, even
by SIGKILL), when it is told to by SIGTERM or SIGUSR1, and when the command itself has ended. A
command that can end in order, saving what it has, is given time for that when it is told; when its
supervisor is gone it is ended at once. Standard library only: it starts in a few milliseconds with
``python -I -S launch/starters/guard.py``.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05
_STOP = (signal.SIGTERM, signal.SIGUSR1)


def main(arguments: list[str]) -> int:
    """Run ``arguments[2:]``; return its exit status, 128 + n where signal n ended it.

    ``arguments[0]`` is the grace in seconds between SIGTERM and SIGKILL, ``arguments[1]`` that of a
    command which can end in order, 0 for one that cannot.
    """
    grace_s, order_s = map(float, arguments[:2])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake = _wake_on_signals()
    child = subprocess.Popen(
        arguments[2:],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
    )
    told = _wait_until_over(child, wake)
    if child.poll() is None and (told or not order_s):
        _signal_group(child.pid, signal.SIGTERM)
        _wait_for(child, order_s if told and order_s else grace_s, watch=told)
    kill_descendants(child)
    status = child.wait()
    return status if status >= 0 else 128 - status


def descendants(pid: int, parents: Iterable[tuple[int, int]]) -> list[int]:
    """All processes below ``pid``, given ``(process, its parent)`` pairs."""
    children: dict[int, list[int]] = {}
    for process, parent in parents:
        children.setdefault(parent, []).append(process)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def process_parents() -> list[tuple[int, int]]:
    """``(process, its parent)`` of every process that /proc shows."""
    pairs = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2]
            except OSError:
                continue
            pairs.append((int(entry.name), int(after_name.split()[1])))
    return pairs


def kill_descendants(child: "subprocess.Popen[bytes]", deadline_s: float = 3.0) -> None:
    """SIGKILL everything below this process until nothing is left."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        below = descendants(os.getpid(), process_parents())
        for pid in below:
            _signal(pid, signal.SIGKILL)
        _reap(child)
        if not below:
            return
        time.sleep(_POLL_S / 5)


def _wake_on_signals() -> int:
    """A file descriptor that becomes readable when a signal asks us to look around."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (*_STOP, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: None)
    return reader


def _wait_until_over(child: "subprocess.Popen[bytes]", wake: int) -> bool:
    """Return when the command ended, when told to stop (True) or when the supervisor is gone."""
    supervisor = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([supervisor, wake], [], [])
        if supervisor in ready and not os.read(supervisor, 64):
            return False
        if wake in ready and not set(_STOP).isdisjoint(os.read(wake, 64)):
            return True
        _reap(child)
        if child.poll() is not None:
            return False


def _wait_for(child: "subprocess.Popen[bytes]", seconds: float, *, watch: bool) -> None:
    """Wait for the command; with ``watch`` only until the supervisor wants the end at once."""
    deadline = time.monotonic() + seconds
    supervisor = [sys.stdin.fileno()] if watch else []
    while child.poll() is None and time.monotonic() < deadline:
        ready, _, _ = select.select(supervisor, [], [], _POLL_S)
        if ready and not os.read(ready[0], 64):
            return


def _reap(child: "subprocess.Popen[bytes]") -> None:
    """Collect the exit status of adopted orphans, but leave the command's to its object."""
    child.poll()
    for pid, parent in process_parents():
        if parent == os.getpid() and pid != child.pid:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
