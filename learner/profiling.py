"""Traces of some training steps, to be opened in Perfetto or chrome://tracing.

A trace holds every operator, with the kernels it started on a GPU, and a range for each pack. It
covers the first packs of a step only, so that it stays small enough to open; a step of fewer packs
is covered to its end, optimizer included.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

log = logging.getLogger(__name__)

MOST_PACKS = 4
"""Packs in one trace."""
UNPROFILED_STEPS = 2
"""Steps before the first trace: they allocate memory, tune kernels and compile."""


def profiled_steps(first: int, last: int, count: int) -> range:
    """Which steps to profile: ``count`` of them, after UNPROFILED_STEPS if there are enough.

    Args:
        first: the first step of this process.
        last: the number of the step after the last one.
        count: how many are wanted.
    """
    start = max(first, min(first + UNPROFILED_STEPS, last - count))
    return range(start, min(start + count, last))


class StepProfiler:
    """Writes one trace for each of some steps, and costs nothing in any other."""

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        *,
        steps: Collection[int],
        rank: int = 0,
        most_packs: int = MOST_PACKS,
    ) -> None:
        """Nothing is written or changed before the first of ``steps``.

        Args:
            model: called once for each pack.
            folder: where traces go; made when the first one is written.
            steps: which steps to profile, by number.
            rank: of this process; part of the file names.
            most_packs: see MOST_PACKS.
        """
        self._model = model
        self._folder = folder
        self._steps = steps
        self._rank = rank
        self._most_packs = most_packs

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Run step ``number``, and write its trace to ``step-NNNNNN-rankR.json`` if it has one."""
        if number not in self._steps:
            yield
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{number:06d}-rank{self._rank}.json"
        with trace_packs(self._model, path, most_packs=self._most_packs):
            yield
        log.info("trace written step=%d file=%s bytes=%d", number, path, path.stat().st_size)


@contextmanager
def trace_packs(model: nn.Module, path: Path, *, most_packs: int = MOST_PACKS) -> Iterator[None]:
    """Write a trace of what happens inside, up to the end of ``most_packs`` calls of a model.

    Args:
        model: whose calls count.
        path: of the trace, Chrome's JSON format.
        most_packs: calls that are traced, each with all that follows it until the next.
    """
    trace = _Trace(most_packs)
    hook = model.register_forward_pre_hook(trace.on_call)
    trace.start()
    try:
        yield
    finally:
        hook.remove()
        trace.stop()
    trace.profiler.export_chrome_trace(str(path))


class _Trace:
    """A profiler that stops by itself."""

    def __init__(self, most_packs: int) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self.profiler = profile(activities=activities)
        self._most_packs = most_packs
        self._calls = 0
        self._range: record_function | None = None
        self._is_running = False

    def start(self) -> None:
        self.profiler.start()
        self._is_running = True

    def on_call(self, *_: Any) -> None:
        """The model is about to be called."""
        if not self._is_running:
            return
        if self._calls == self._most_packs:
            self.stop()
            return
        self._end_range()
        self._range = record_function(f"pack {self._calls}")
        self._range.__enter__()  # type: ignore[no-untyped-call]
        self._calls += 1

    def stop(self) -> None:
        """End the trace; harmless when repeated."""
        self._end_range()
        if self._is_running:
            self.profiler.stop()
            self._is_running = False

    def _end_range(self) -> None:
        if self._range is not None:
            self._range.__exit__(None, None, None)
            self._range = None
