"""Starts the processes of a run in order, watches them, and leaves nothing behind.

Each child runs under a guard (``launch.guard``) in a session of its own, with its own log file.
Nothing is restarted: a child that ends unexpectedly ends the run, with its name, how it ended and
its last lines.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self

from common.errors import RunFailed

logger = logging.getLogger(__name__)

POLL_S = 0.1
GRACE_S = 4.0
"""Between SIGTERM and SIGKILL; with what the guard adds, all is over within 10 s."""
STOP_S = 9.0
LAST_LINES = 15
REPOSITORY = Path(__file__).resolve().parents[1]
"""Where children run, so that nothing in the caller's folder shadows our packages."""
_GUARD = Path(__file__).with_name("guard.py")


class Interrupted(Exception):
    """Somebody asked the run to end, by Ctrl-C or SIGTERM."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSpec:
    """What to start, and how to tell that it is ready.

    ``is_ready`` is asked until it is true; without it a process is ready when it runs.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to our own environment."""
    is_ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    hint: str = ""
    """What a person can do when it ends unexpectedly."""


class Supervisor:
    """The children of one run; use it as a context manager, which ends them all on the way out."""

    def __init__(self, *, grace_s: float = GRACE_S, tick: Callable[[], None] | None = None) -> None:
        """Take charge of no children yet; ``tick`` is called several times a second in waits."""
        self._grace_s = grace_s
        self._tick = tick or (lambda: None)
        self._children: dict[str, tuple[ProcessSpec, subprocess.Popen[bytes]]] = {}

    def __enter__(self) -> Self:
        """Nothing is running yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every child."""
        self.stop()

    def start(self, spec: ProcessSpec) -> None:
        """Start a child and wait until it is ready.

        Raises:
            RunFailed: it, or another child, ended before, or the time was up.
        """
        self.spawn(spec)
        started = time.monotonic()
        while spec.is_ready is not None and not spec.is_ready():
            self.check()
            if time.monotonic() - started > spec.ready_timeout_s:
                raise RunFailed(
                    f"{spec.name} was not ready after {spec.ready_timeout_s:.0f} s; "
                    + describe_tail(spec.log)
                )
            self._pause()
        self.check()
        logger.info("process ready name=%s seconds=%.1f", spec.name, time.monotonic() - started)

    def spawn(self, spec: ProcessSpec) -> None:
        """Start a child without waiting for it."""
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        with spec.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), str(self._grace_s), *spec.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                env={**os.environ, **spec.env},
                start_new_session=True,
            )
        self._children[spec.name] = (spec, process)
        logger.info("process started name=%s pid=%d", spec.name, process.pid)

    def check(self) -> None:
        """Raise if a child ended.

        Raises:
            RunFailed: a child that nobody waits for ended.
        """
        self._check_all_but(set())

    def finish(self, *names: str, ending: Sequence[str] = (), timeout_s: float = math.inf) -> None:
        """Wait until these children have ended with status 0, while the others go on.

        Args:
            names: children to wait for.
            ending: children that may end meanwhile, with status 0, and are waited for later.
            timeout_s: longest wait.

        Raises:
            RunFailed: one of them failed or the time is up, or another child ended.
        """
        started = time.monotonic()
        waiting = set(names)
        while True:
            waiting -= {name for name in waiting if self._status(name) == 0}
            self._check_all_but({*waiting, *names, *ending})
            for name in (*names, *ending):
                if self._status(name) not in (None, 0):
                    raise _failure(*self._children[name])
            if not waiting:
                break
            if time.monotonic() - started > timeout_s:
                name = min(waiting)
                tail = describe_tail(self._children[name][0].log)
                raise RunFailed(f"{name} did not end within {timeout_s:.0f} s; {tail}")
            self._pause()
        for name in names:
            self._forget(name)

    def _status(self, name: str) -> int | None:
        return self._children[name][1].poll()

    def _check_all_but(self, names: set[str]) -> None:
        for name, (spec, process) in self._children.items():
            if name not in names and process.poll() is not None:
                raise _failure(spec, process)

    def is_running(self, name: str) -> bool:
        """Whether that child was started and has not ended."""
        return name in self._children and self._children[name][1].poll() is None

    def stop(self) -> None:
        """End all children: SIGTERM to each group, SIGKILL to what is left after the grace."""
        children = list(self._children.values())
        for _, process in children:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_S
        for spec, process in children:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("process killed name=%s pid=%d", spec.name, process.pid)
                process.kill()
                process.wait()
        for name in [spec.name for spec, _ in children]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        _, process = self._children.pop(name)
        if process.stdin is not None:
            process.stdin.close()

    def _pause(self) -> None:
        self._tick()
        time.sleep(POLL_S)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into ``Interrupted``; later ones wait for the clean-up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for later in (signal.SIGINT, signal.SIGTERM):
            signal.signal(later, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    before = {
        number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe_exit(status: int) -> str:
    """How a process ended, in words; 128 + n means signal n."""
    number = -status if status < 0 else status - 128
    if status < 0 or status > 128:
        try:
            return f"was ended by signal {number} ({signal.Signals(number).name})"
        except ValueError:
            pass
    return f"ended with exit code {status}"


def last_lines(log: Path, count: int = LAST_LINES) -> list[str]:
    """The last lines of a log file, without empty ones."""
    if not log.is_file():
        return []
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 20_000))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-count:]


def describe_tail(log: Path) -> str:
    """The last lines of a log, introduced by its name."""
    lines = last_lines(log)
    if not lines:
        return f"its log {log} is empty"
    return f"the last lines of {log}:\n" + "\n".join(f"  | {line}" for line in lines)


def _failure(spec: ProcessSpec, process: "subprocess.Popen[bytes]") -> RunFailed:
    status = process.returncode
    hint = f"\n{spec.hint}" if spec.hint else ""
    ended = describe_exit(status)
    return RunFailed(f"{spec.name} {ended} unexpectedly; {describe_tail(spec.log)}{hint}")
