"""Pickled files, looked for every 0.5 s, as in the published system; no encryption, no journal.

    python -m benchmarks.transport.polled FOLDER SLOTS BYTES

A slot writes its trajectory as a file and goes on once that is gone, which is when the learner has
read it.
"""

import pickle
import sys
import time
from pathlib import Path

from benchmarks.transport.processes import started
from benchmarks.transport.work import Measured, made_trajectory

POLL_S = 0.5
_LOOK_S = 0.01


def deliver(folder: Path, *, num_bytes: int, count: int, slots: int) -> Measured:
    """One round of at least ``count`` trajectories; the first look at them does not count."""
    delivery_ms: list[float] = []
    with started("polled", str(folder), str(slots), str(num_bytes)):
        while not _read(folder):
            time.sleep(POLL_S)
        began, cpu_s = time.perf_counter(), time.process_time()
        while len(delivery_ms) < count:
            time.sleep(POLL_S)
            delivery_ms += _read(folder)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    return Measured(
        per_s=len(delivery_ms) / seconds,
        cpu_ms=1000 * cpu_s / len(delivery_ms),
        delivery_ms=tuple(delivery_ms),
    )


def _read(folder: Path) -> list[float]:
    """Take what is there; milliseconds since each was written."""
    waited = []
    for path in folder.glob("*.pkl"):
        written_at = path.stat().st_mtime
        pickle.loads(path.read_bytes())
        waited.append(1000 * (time.time() - written_at))
        path.unlink()
    return waited


def write(folder: Path, slots: int, num_bytes: int) -> None:
    made = made_trajectory(num_bytes)
    while True:
        for slot in range(slots):
            path = folder / f"{slot}.pkl"
            if not path.exists():
                unfinished = path.with_suffix(".part")
                unfinished.write_bytes(pickle.dumps(made))
                unfinished.rename(path)
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
