"""How a process is asked to end so that its work can go on later, and the status that says so.

Schedulers and clouds say SIGTERM before they take a machine away; Slurm can be told to say SIGUSR1
some time before (``sbatch --signal``). Both mean the same here: save, hand back, end. The processes
of a run hear them once, however often they are sent; a second signal to ``lzero train`` itself ends
all of them at once.
"""

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

EXIT_RESUME = os.EX_TEMPFAIL
"""75, of sysexits.h: a temporary failure; the same command with ``--resume`` goes on."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

ECHO_S = 1.0
"""A signal this soon after the first is the same one, which a parent passed on as well."""


class StopRequest:
    """Whether, and since when, this process is asked to end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody has asked yet; ``clock`` gives seconds."""
        self._clock = clock
        self._asked_at: float | None = None

    @property
    def asked(self) -> bool:
        """Whether somebody asked."""
        return self._asked_at is not None

    def note(self) -> bool:
        """Take down a signal; whether it is a second one, not the first by another way."""
        now = self._clock()
        if self._asked_at is None:
            self._asked_at = now
        return now - self._asked_at > ECHO_S

    def left_s(self, grace_s: float) -> float:
        """Seconds that are left of a grace that began with the first signal; all of it before."""
        if self._asked_at is None:
            return grace_s
        return max(0.0, self._asked_at + grace_s - self._clock())


def stop_request() -> StopRequest:
    """A request that the signals of this process fill in; only the main thread may ask for it."""
    request = StopRequest()

    def take(number: int, frame: FrameType | None) -> None:
        request.note()

    for number in STOP_SIGNALS:
        signal.signal(number, take)
    return request
