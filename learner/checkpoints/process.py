"""A rank's handle of its checkpoint writer: starts it, gives it jobs, hears how they ended."""

import contextlib
import os
import select
import subprocess
from pathlib import Path
from typing import IO

from common.child_process import child_command, module_environment
from common.errors import LZeroError
from learner.checkpoints.job import Answer, Job, answer_from_line


class WriterProcess:
    """At most one job at a time; the process starts with the first and stays."""

    def __init__(self, buffer: int, folder: Path) -> None:
        """Take what every job is about.

        Args:
            buffer: file descriptor of the memory with the data.
            folder: of the checkpoints; named in the command line, so that people find the process.
        """
        self._buffer = buffer
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether a job was given of which nobody has heard the end."""
        return self._busy

    def is_writing(self) -> bool:
        """Whether a job was given whose end ``wait`` would wait for."""
        if not self._busy or self._process is None:
            return False
        return not select.select([_pipe(self._process.stdout)], [], [], 0)[0]

    @property
    def pid(self) -> int | None:
        """Of the process, once it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process, if it does not run; ``submit`` does it too."""
        if self._process is None or self._process.poll() is not None:
            self._begin()

    def submit(self, job: Job) -> None:
        """Give it a job.

        Raises:
            RuntimeError: nobody has waited for the job before.
            LZeroError: the process ended meanwhile.
        """
        if self._busy:
            raise RuntimeError("the checkpoint writer is at work; wait for it first")
        process = self._process
        if process is None or process.poll() is not None:
            process = self._begin()
        self._busy = True
        _schedule(process.pid, os.SCHED_IDLE)
        try:
            _pipe(process.stdin).write(job.as_line())
            _pipe(process.stdin).flush()
        except BrokenPipeError as error:
            raise self._death(process) from error

    def wait(self, timeout_s: float | None = None) -> Answer | None:
        """How the job ended; None where there was none, or it is not over in time.

        Raises:
            LZeroError: the process ended before the job.
        """
        process = self._process
        if not self._busy or process is None:
            return None
        _schedule(process.pid, os.SCHED_OTHER)
        answers = _pipe(process.stdout)
        if not select.select([answers], [], [], timeout_s)[0]:
            return None
        line = answers.readline()
        self._busy = False
        if not line:
            raise self._death(process)
        return answer_from_line(line)

    def kill(self) -> None:
        """End it at once; what it was writing stays as a partial folder."""
        if self._process is not None:
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End it once it is idle."""
        process, self._process = self._process, None
        self._busy = False
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def _begin(self) -> "subprocess.Popen[str]":
        self.close()
        process = subprocess.Popen(
            child_command(
                "learner.checkpoints.writer",
                *("--buffer", str(self._buffer), "--folder", str(self._folder)),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(self._buffer,),
            env=module_environment({**os.environ, "OMP_NUM_THREADS": "1"}),
        )
        self._process = process
        return process

    def _death(self, process: "subprocess.Popen[str]") -> LZeroError:
        status = process.wait()
        self.close()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with exit code {status}"
        return LZeroError(f"its writer, process {process.pid}, {how}; see the log above")


def _schedule(pid: int, policy: int) -> None:
    """Give the writer time that nobody else wants, or, while it is waited for, a little more.

    Taking it back from SCHED_IDLE needs a privilege on some machines; without, it stays there.
    """
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.sched_setscheduler(pid, policy, os.sched_param(0))


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("the checkpoint writer was started without pipes")
    return pipe
