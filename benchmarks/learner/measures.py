"""Wall time and peak memory of one call, on a CPU or a CUDA device."""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
_GIB = 1 << 30


@dataclass
class Rounds(Generic[T]):
    """What the calls of one way took.

    Attributes:
        seconds: wall time of each.
        cpu_seconds: processor time of each, which other programs disturb less.
        peaks_gib: highest memory during each: reserved by torch on CUDA; resident of the process,
            libraries and models at rest included, on a CPU; None where that is not known.
        results: what each returned.
        is_too_large: whether a call ran out of the device's memory; it then has no result.
    """

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    peaks_gib: list[float | None] = field(default_factory=list)
    results: list[T] = field(default_factory=list)
    is_too_large: bool = False

    def add(self, call: Callable[[], T], device: torch.device) -> None:
        """Measure one call; none after one that did not fit."""
        if self.is_too_large:
            return
        reset_peak(device)
        _finish(device)
        began, cpu_began = time.perf_counter(), time.process_time()
        try:
            result = call()
        except torch.OutOfMemoryError:
            self.is_too_large = True
            return
        _finish(device)
        self.seconds.append(time.perf_counter() - began)
        self.cpu_seconds.append(time.process_time() - cpu_began)
        self.peaks_gib.append(peak_gib(device))
        self.results.append(result)

    @property
    def median_s(self) -> float | None:
        """Median wall time; None without results."""
        return median(self.seconds) if self.seconds else None

    @property
    def peak(self) -> float | None:
        """Highest memory of any round, GiB."""
        return max((peak for peak in self.peaks_gib if peak is not None), default=None)


def device_name() -> str:
    """The GPU as torch names it, or "CPU"."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Give back what is free and begin to look for a peak anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):  # no glibc, or not allowed: peaks then never fall
        return


def peak_gib(device: torch.device) -> float | None:
    """Highest memory since ``reset_peak``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / _GIB
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024 / _GIB
