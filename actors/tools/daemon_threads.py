"""Threads for work that may never end: the interpreter does not wait for them when it ends."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_Work = tuple[Future[Any], Callable[[], Any]]


class DaemonThreads:
    """As ``ThreadPoolExecutor``, but a call that never ends does not keep the process from ending.

    Use it from one thread.
    """

    def __init__(self, most: int, name: str) -> None:
        """Start at most ``most`` threads, when they are needed; ``name`` is theirs."""
        self._most, self._name = most, name
        self._started = 0
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Call it in the first thread that is free."""
        future: Future[Any] = Future()
        self._work.put((future, call))
        if self._started < self._most:
            self._started += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()
        return future

    def end(self) -> None:
        """End each thread when it is done; takes no more calls."""
        for _ in range(self._started):
            self._work.put(None)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            _do(*work)
            del work  # and with it what came of the call


def _do(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # also SystemExit, which is for whoever waits
        future.set_exception(error)
