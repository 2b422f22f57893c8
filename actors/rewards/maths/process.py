"""A judge process's handle of the process that compares formulas for it.

An answer that makes the comparison take too long, too much memory, or crash is a wrong one: the
policy wrote it. Only a process that does not start, or a machine that gives it no time, is no
fault of the answer.
"""

import atexit
import contextlib
import json
import os
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path

from actors.rewards.maths.equality import same_text
from common.child_process import child_command, module_environment
from common.errors import MachineError

_MODULE = "actors.rewards.maths.worker"

CPU_S = 3.0
"""CPU time that one comparison may take."""
PATIENCE_S = 6.0
"""Wall time after which it is given up: a busy machine must not carry it past the judge's."""
ENOUGH_S = 1.0
"""CPU time in which an answer that is no bomb is compared; who had so much is wrong then."""


class Comparer:
    """Compares answers; starts its process when a formula has to be understood, not before."""

    def __init__(self, *, cpu_s: float = CPU_S) -> None:
        """Nothing is started yet; one comparison may take so many seconds of CPU time."""
        self._cpu_s = cpu_s
        self._process: _Process | None = None
        atexit.register(self.close)

    def equal(self, given: str, gold: Sequence[str]) -> bool:
        """Whether ``given`` equals one of the gold answers.

        Raises:
            MachineError: the process does not start, or gets no time.
        """
        if any(same_text(given, one) for one in gold):
            return True
        process = self._started()
        said = ""
        try:
            said = process.ask(json.dumps({"given": given, "gold": list(gold)}))
        finally:
            if not said:
                self.close()
        return said == "1"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def _started(self) -> "_Process":
        if self._process is None:
            self._process = _Process(self._cpu_s)
            if self._process.hear() != "ready":
                self.close()
                raise MachineError(
                    "kind 'math': the process that compares formulas does not start; "
                    f"python -m {_MODULE} {self._cpu_s:g} says why"
                )
        return self._process


class _Process:
    """One process; a line in, a line out."""

    def __init__(self, cpu_s: float) -> None:
        popen = subprocess.Popen(
            child_command(_MODULE, str(cpu_s)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what sympy says of an answer is no concern of the actor
            env=module_environment(os.environ),
            encoding="utf-8",
        )
        assert popen.stdin is not None  # noqa: S101 - we asked for pipes
        assert popen.stdout is not None  # noqa: S101
        self._popen, self._input, self._output = popen, popen.stdin, popen.stdout

    def hear(self) -> str:
        """The next line; empty where it has ended."""
        return self._output.readline().strip()

    def ask(self, line: str) -> str:
        """What it says to a line; empty where it has ended."""
        before = self._cpu_seconds()
        with contextlib.suppress(BrokenPipeError):
            self._input.write(line + "\n")
            self._input.flush()
            if select.select([self._output], [], [], PATIENCE_S)[0]:
                return self.hear()
            if self._cpu_seconds() - before < ENOUGH_S:
                raise MachineError(
                    f"kind 'math': the machine gave less than {ENOUGH_S:g} s of CPU time in "
                    f"{PATIENCE_S:g} s to a comparison; it is too busy"
                )
        return ""

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait()
        for stream in (self._input, self._output):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
