"""For what another thread or process does: wait until it is done, and fail where it never is."""

import threading
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    changed = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        changed.wait(0.01)
