"""What a process holds that it should have let go."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import wait_for


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """No descriptor and no thread outlives the block."""
    descriptors, threads = open_descriptors(), threading.active_count()
    yield
    wait_for(lambda: open_descriptors() <= descriptors)
    wait_for(lambda: threading.active_count() <= threads)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
