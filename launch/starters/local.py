"""Starts the processes of a run in order, watches them, and leaves nothing behind.

Each child runs under a guard (``launch.starters.guard``) in a session of its own, with its own log
file. A child that ends unexpectedly is started again where its spec allows it, later each time and
so many times an hour (``common.restarts``); one that is not is given up while another of its kind
runs. Any other, one that never worked, and one that said that it would only end of the same again,
ends the run, with its name, how it ended and its last lines.
"""

import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from common.child_process import SOURCE_ROOT, module_environment
from common.errors import RunError
from common.restarts import BUDGET, RestartBook
from common.stopping import STOP_SIGNALS, StopRequest
from launch.starters.child import Child, ProcessSpec
from launch.starters.ends import killed_for_memory

logger = logging.getLogger(__name__)

POLL_S = 0.1
GRACE_S = 4.0
"""Between SIGTERM and SIGKILL; with what the guard adds, all is over within 10 s."""
STOP_S = 9.0
_ENDING = (signal.SIGINT, *STOP_SIGNALS)
_GUARD = Path(__file__).with_name("guard.py")


class Interrupted(Exception):
    """Somebody asked the run to end, by Ctrl-C or a signal."""


class StopAsked(Interrupted):
    """Somebody asked, by SIGTERM or SIGUSR1, for an end from which the run can go on."""


class Supervisor:
    """The children of one run; use it as a context manager, which ends them all on the way out."""

    def __init__(
        self,
        *,
        grace_s: float = GRACE_S,
        tick: Callable[[], None] | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Take charge of no children yet.

        Args:
            grace_s: between SIGTERM and SIGKILL at the end.
            tick: called several times a second in waits.
            tell: gets a sentence for each child that is started again.
        """
        self._grace_s = grace_s
        self._tick = tick or (lambda: None)
        self._tell = tell
        self._children: dict[str, Child] = {}
        self._starting: dict[str, ProcessSpec] = {}
        self._books: dict[str, RestartBook] = {}
        self._due: dict[str, float] = {}
        """When a child that has ended is started again."""
        self._restarts_are_over = False

    def __enter__(self) -> Self:
        """Nothing is running yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End every child."""
        self.stop()

    def start(self, *specs: ProcessSpec) -> None:
        """Start children at the same time and wait until all are ready.

        Raises:
            RunError: one of them, or another child, ended before, or the time was up.
        """
        for spec in specs:
            self.spawn(spec)
        self._starting = {spec.name: spec for spec in specs}
        started = time.monotonic()
        while self._starting:
            for spec in list(self._starting.values()):
                self._look_whether_ready(spec, seconds=time.monotonic() - started)
            self.check()
            if self._starting:
                self._pause()

    def _look_whether_ready(self, spec: ProcessSpec, *, seconds: float) -> None:
        """So long after its start; raises where that is too long."""
        if spec.is_ready is None or spec.is_ready():
            self.check()
            del self._starting[spec.name]
            logger.info("process ready name=%s seconds=%.1f", spec.name, seconds)
        elif seconds > spec.ready_timeout_s:
            raise RunError(
                f"{spec.name} was not ready after {spec.ready_timeout_s:.0f} s; "
                + self._children[spec.name].tail()
            )

    def spawn(self, spec: ProcessSpec) -> None:
        """Start a child without waiting for it."""
        spec.begin()
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        log_start = spec.log.stat().st_size if spec.log.exists() else 0
        with spec.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), *self._graces(spec), *spec.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=SOURCE_ROOT,
                env={**module_environment(os.environ), **spec.env},
                start_new_session=True,
            )
        self._children[spec.name] = Child(spec, process, log_start, killed_for_memory())
        logger.info("process started name=%s pid=%d", spec.name, process.pid)

    def _graces(self, spec: ProcessSpec) -> tuple[str, str]:
        return str(self._grace_s), str(spec.order_s)

    def check(self) -> None:
        """Raise if a child ended.

        Raises:
            RunError: a child that nobody waits for ended.
        """
        self._check_all_but(set())

    def finish(self, *names: str, ending: Sequence[str] = (), timeout_s: float = math.inf) -> None:
        """Wait until these children have ended with status 0, while the others go on.

        Args:
            names: children to wait for.
            ending: children that may end meanwhile, with status 0, and are waited for later; when
                one of ``names`` is started again, so are they, since what told them to end is gone.
            timeout_s: longest wait.

        Raises:
            RunError: one of them failed or the time is up, or another child ended.
        """
        started = time.monotonic()
        waiting = set(names)
        while True:
            waiting -= {name for name in waiting if self._status(name) == 0}
            self._check_all_but({*waiting, *names, *ending})
            for name in (*names, *ending):
                if self._status(name) not in (None, 0) and self._has_ended(name) and name in names:
                    self._spawn_done(ending)
            if not waiting:
                break
            if time.monotonic() - started > timeout_s:
                name = min(waiting)
                tail = self._children[name].tail()
                raise RunError(f"{name} did not end within {timeout_s:.0f} s; {tail}")
            self._pause()
        for name in names:
            self._forget(name)

    def see_off(self, *names: str, patience_s: float) -> None:
        """Wait until these have ended with 0; who has not in time is asked to.

        Raises:
            RunError: one of them failed by itself, or another child ended.
        """
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(self._status(name) is None for name in names):
            self._check_all_but(set(names))
            self._pause()
        late = [name for name in names if self._status(name) is None]
        self.finish(*(name for name in names if name not in late), ending=late)
        for name in late:
            logger.warning("process had to be asked to end name=%s", name)
            self.end_in_order(name)

    def end_restarts(self) -> None:
        """From now on nothing is started again; who waits for that is forgotten."""
        self._restarts_are_over = True
        for name in self._due:
            self._forget(name)
        self._due.clear()

    def end_in_order(self, name: str) -> bool:
        """Ask a child to end, and wait for it as long as it may take; the others may end meanwhile.

        Returns:
            Whether it has ended.
        """
        child = self._children.get(name)
        if child is None:
            return True
        child.process.terminate()
        deadline = time.monotonic() + child.spec.order_s
        while child.process.poll() is None and time.monotonic() < deadline:
            self._pause()
        return child.process.poll() is not None

    def _status(self, name: str) -> int | None:
        """The exit status of a child, None while it runs; one that was forgotten is done."""
        return self._children[name].process.poll() if name in self._children else 0

    def _check_all_but(self, names: set[str]) -> None:
        for name, child in list(self._children.items()):
            if name not in names and child.process.poll() is not None:
                self._has_ended(name)

    def _has_ended(self, name: str) -> bool:
        """Start a child again, when its time has come, or leave it; raise where it is missed.

        Returns:
            Whether it was started.
        """
        child = self._children[name]
        if name not in self._due:
            wait_s = self._wait_s(child)
            if wait_s is None:
                self._forget(name)
                return False
            self._due[name] = time.monotonic() + wait_s
        if time.monotonic() < self._due[name]:
            return False
        del self._due[name]
        self._spawn_again(child)
        return True

    def _spawn_done(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._children and self._status(name) == 0:
                self._spawn_again(self._children[name])

    def _spawn_again(self, child: Child) -> None:
        self._forget(child.spec.name)
        self.spawn(child.spec)

    def _wait_s(self, child: Child) -> float | None:
        """Seconds until a child that has ended is started again; None if it is not.

        Says so; raises where it cannot be done without.
        """
        spec, book = child.spec, self._books.setdefault(child.spec.name, RestartBook())
        if spec.has_stopped():
            raise StopAsked(f"{spec.name} was asked to stop")
        may = spec.is_restarted and not self._restarts_are_over and not spec.would_end_again()
        has_worked = (spec.name not in self._starting and spec.has_worked()) or child.was_killed()
        wait_s = book.ended(time.monotonic(), has_worked=has_worked) if may else None
        if wait_s is None and not (has_worked and self._has_another(spec)):
            raise child.failure(restarts=book.in_last_hour)
        logger.warning("%s", child.failure(restarts=0 if wait_s else book.in_last_hour))
        then = (
            f"it is started again in {wait_s:.0f} s (restart {book.in_last_hour} of at most "
            f"{BUDGET} in an hour)"
            if wait_s is not None
            else "it is not started again, others like it go on"
        )
        self._tell(f"{child.ending()}, see {spec.log}; {then}")
        return wait_s

    def _has_another(self, spec: ProcessSpec) -> bool:
        """Whether another child of that kind runs, or is going to."""
        return bool(spec.kind) and any(
            child.spec.kind == spec.kind and (child.process.poll() is None or name in self._due)
            for name, child in self._children.items()
            if name != spec.name
        )

    def stop(self) -> None:
        """End all children: SIGTERM to each group, SIGKILL to what is left after the grace.

        Those that could end in order had their time for it in ``end_in_order``. A signal that comes
        meanwhile is raised once all have ended.
        """
        signalled: Interrupted | None = None
        while self._children:
            try:
                self._end_all()
            except Interrupted as interrupted:
                signalled = interrupted
        if signalled is not None:
            raise signalled

    def _end_all(self) -> None:
        children = list(self._children.values())
        for child in children:
            if child.process.stdin is not None:
                child.process.stdin.close()
        deadline = time.monotonic() + STOP_S
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("process killed name=%s", child.spec.name)
                child.process.kill()
                child.process.wait()
            self._forget(child.spec.name)

    def _forget(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is not None and child.process.stdin is not None:
            child.process.stdin.close()

    def _pause(self) -> None:
        self._tick()
        time.sleep(POLL_S)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn signals into exceptions, as long as there is something to end.

    SIGINT raises ``Interrupted``. The first SIGTERM or SIGUSR1 raises ``StopAsked``, and while what
    it began is under way a second signal raises again. Later ones wait for the clean-up.
    """
    request = StopRequest()

    def interrupt(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if number in STOP_SIGNALS and not request.asked:
            request.note()
            raise StopAsked(name)
        if number in STOP_SIGNALS and not request.note():
            return  # the same signal by another way
        for later in _ENDING:
            signal.signal(later, signal.SIG_IGN)
        raise StopAsked(name) if number in STOP_SIGNALS else Interrupted(name)

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
