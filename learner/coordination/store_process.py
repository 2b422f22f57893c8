"""The trajectory store in a process of its own: what comes is only put where that process finds it.

consumes   trajectories, in the frames in which they came
produces   what ``TrajectoryStore`` writes, a little later
waits for  nothing but the disk; at the end for the process to write what is left

Who is killed loses no line: what was put there, the process writes when it sees that the learner is
gone, and where it was killed as well, the process of the learner that goes on.
"""

import logging
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from common.child_process import module_command, module_environment
from common.wire.codec import Buffer
from common.wire.records import Trajectory
from learner.coordination.spool import Spool

log = logging.getLogger(__name__)

CLOSING_S = 60.0
"""How long the end of a run waits for what is left."""
_AGAIN_S = 5.0
"""Between two starts of a process that ends."""


class StoreProcess:
    """A ``Store``; for one thread."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        """Start the process; the arguments are those of ``TrajectoryStore``."""
        self._folder, self._limit_bytes = folder, limit_bytes
        self._spool = Spool(folder, limit_bytes=limit_bytes)
        self._begin()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def append(self, trajectory: Trajectory, frames: Sequence[Buffer] = ()) -> None:
        """Have one written. OSError where the disk does not take it."""
        self._spool.append(frames)
        if self._process.poll() is not None and time.monotonic() - self._began > _AGAIN_S:
            log.warning("the trajectory store ended status=%d: again", self._process.returncode)
            self._begin()

    def close(self) -> None:
        """Return when all is written."""
        self._spool.close()
        if self._end() != 0:  # it was killed: what is left is for another
            self._begin()
            if self._end() != 0:
                log.warning("trajectories are left unstored folder=%s", self._folder)
                return
        self._spool.remove()

    def _end(self) -> int:
        """Let it write what is left; its exit status."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return self._process.wait(CLOSING_S)
        except subprocess.TimeoutExpired:
            log.warning("trajectories not stored after=%.0f s; the disk hangs", CLOSING_S)
            self._process.kill()
            return self._process.wait()

    def _begin(self) -> None:
        """It is in a session of its own, so that what ends the learner in order is not for it."""
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            module_command(
                "learner.coordination.store_writer",
                *("--folder", str(self._folder), "--limit-bytes", str(self._limit_bytes)),
            ),
            stdin=subprocess.PIPE,
            env=module_environment({**os.environ, "OMP_NUM_THREADS": "1"}),
            start_new_session=True,
        )
