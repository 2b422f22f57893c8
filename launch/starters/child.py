"""One child of the local starter: what is started, and how it ended, in words."""

import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import RunError
from launch.starters.ends import (
    LAST_LINES,
    OUT_OF_MEMORY,
    describe_exit,
    killed_for_memory,
    last_lines,
)


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
    hint: Callable[[], str] = lambda: ""
    """What a person can do when it ends unexpectedly; asked when it has."""
    noise: str = ""
    """Log lines from the first that contains this on say nothing about the cause, unless they are
    explained."""
    explain: Callable[[str], str] = lambda line: line
    """Rewrites log lines that only an expert can read."""
    order_s: float = 0.0
    """How long it may take to end in order when it gets SIGTERM; 0 for what just ends."""
    has_stopped: Callable[[], bool] = lambda: False
    """Whether it ended in order, whatever its exit status; asked when it has ended."""
    is_restarted: bool = False
    """Whether it is started again when it ends unexpectedly."""
    kind: str = ""
    """Others of its kind do its work where it is given up; the last of them is not."""
    has_worked: Callable[[], bool] = lambda: True
    """Whether it has ever done what it is for, once it was ready; asked when it has ended."""
    begin: Callable[[], None] = lambda: None
    """Called before each start, to remove what an earlier life left."""
    cause: Callable[[], str] = lambda: ""
    """What it said itself that it ended of, if it did; asked when it has ended."""
    would_end_again: Callable[[], bool] = lambda: False
    """Whether it said that it would only end of the same again; asked when it has ended."""


@dataclass(frozen=True, slots=True)
class Child:
    """A child that was started."""

    spec: ProcessSpec
    process: "subprocess.Popen[bytes]"
    log_start: int
    """Where this attempt's lines begin in the log."""
    killed_before: int
    """Processes that the system had killed for want of memory when it was started."""

    def tail(self) -> str:
        """The last lines of this attempt, introduced by the log's name."""
        lines = [words for _, words in self._last_lines()]
        if not lines:
            return f"its log {self.spec.log} is empty"
        listed = "\n".join(f"  | {words}" for words in lines)
        return f"the last lines of {self.spec.log}:\n{listed}"

    def ending(self) -> str:
        """How it ended and of what, in one sentence without its end."""
        ended = f"{self.spec.name} {describe_exit(self.process.returncode)} unexpectedly"
        causes = [self.spec.cause() or self._explained()]
        if self.was_memory_short():
            causes.append("a process was killed for want of memory meanwhile")
        told = "; ".join(filter(None, causes))
        return f"{ended} ({told})" if told else ended

    def was_killed(self) -> bool:
        """Whether somebody killed it, or one of its processes, and not for want of memory."""
        return describe_exit(-signal.SIGKILL) in self.ending() and not self.was_memory_short()

    def was_memory_short(self) -> bool:
        """Whether the system has killed a process for want of memory since it was started."""
        return killed_for_memory() > self.killed_before

    def failure(self, *, restarts: int = 0) -> RunError:
        """How it ended, for a person; after how many ``restarts`` in an hour."""
        ended = describe_exit(self.process.returncode)
        again = f" after {restarts} restarts within an hour" if restarts else ""
        lines = [f"{self.spec.name} {ended} unexpectedly{again}; {self.tail()}"]
        if self.was_memory_short():
            lines.append(OUT_OF_MEMORY)
        return RunError("\n".join([*lines, *filter(None, [self.spec.hint()])]))

    def _explained(self) -> str:
        """The first of its last lines that had to be explained."""
        return next((words for line, words in self._last_lines() if words != line), "")

    def _last_lines(self) -> list[tuple[str, str]]:
        """The last lines that say something, each with what it says."""
        spec = self.spec
        pairs = [(line, spec.explain(line)) for line in last_lines(spec.log, start=self.log_start)]
        if not spec.noise:
            return pairs[-LAST_LINES:]
        noisy = next((n for n, (line, _) in enumerate(pairs) if spec.noise in line), len(pairs))
        told = [(line, words) for line, words in pairs[noisy:] if words != line]
        return [*pairs[:noisy], *(told or pairs[noisy : noisy + 1])][-LAST_LINES:]
