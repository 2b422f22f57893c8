"""torchrun, but a request to stop goes to the ranks: ``python -m launch.starters.ranks OPTIONS``.

torchrun itself answers SIGTERM by ending its ranks after half a minute and failing, and a second
one in between, as from a launcher that signals every process, makes it leave them at once. Here it
passes the signal on and goes on watching; ranks that saved and ended with 0 make it end with 0.
"""

import contextlib
import os
import signal
from types import FrameType

from torch.distributed.run import main

from common.stopping import STOP_SIGNALS
from launch.starters.guard import process_parents


def pass_on(number: int, frame: FrameType | None) -> None:
    """Give a signal to every rank."""
    for pid, parent in process_parents():
        if parent == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


if __name__ == "__main__":
    os.environ["PET_SIGNALS_TO_HANDLE"] = "SIGINT,SIGHUP,SIGQUIT"
    for each in STOP_SIGNALS:
        signal.signal(each, pass_on)
    main()
