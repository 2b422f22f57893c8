"""Trajectories from actors to the learner's disk, against pyzmq alone and against polled files.

    python -m benchmarks.bench_transport [--quick] [--json PATH] [--rounds N] [--folder PATH]

All ways take turns in one call and carry the same trajectories over the machine's loopback
(benchmarks/transport). Ours is the path of a run: links of actors in processes of their own, door,
intake, coordinator and journal on the disk, up to the ack. What was delivered is counted in the
journal afterwards.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report, arguments, make_report
from benchmarks.transport import ours, polled, raw
from benchmarks.transport.comparison import Found, figures_of, ratios_of
from benchmarks.transport.ours import Load
from benchmarks.transport.work import Measured

SMALL, LARGE = 30_000, 300_000
"""Bytes of a trajectory on the wire."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        small, large: batches of each size in a round, after one that is not counted.
        groups: of 8 trajectories, in a batch.
        slots: leases out at once; as many trajectories wait at either end of pyzmq alone.
        polled: trajectories in a round of polled files.
        actors, batches_of_many: how many actors there are where they are many, a lease each.
        deliveries: trajectories in a round of one actor that delivers one at a time.
    """

    rounds: int = 5
    small: int = 40
    large: int = 12
    groups: int = 16
    slots: int = 64
    polled: int = 512
    actors: int = 1000
    batches_of_many: int = 20
    deliveries: int = 200
    pause_s: float = 0.02


QUICK = Settings(rounds=1, small=4, large=2, groups=8, polled=128, batches_of_many=8, deliveries=48)


def measure(settings: Settings, folder: Path, tell: Callable[[str], None]) -> Found:
    """All rounds, in turns."""
    rounds: dict[str, list[Measured]] = defaultdict(list)
    for number in range(settings.rounds):
        for name, deliver in _ways(settings).items():
            tell(f"round {number + 1} of {settings.rounds}: {name}")
            with tempfile.TemporaryDirectory(prefix="bench-transport-", dir=folder) as scratch:
                rounds[name].append(deliver(Path(scratch)))
    return Found(small_bytes=SMALL, large_bytes=LARGE, **rounds)


def _ways(settings: Settings) -> dict[str, Callable[[Path], Measured]]:
    """What is measured, by the names of ``Found``."""
    small, large = _load(settings, SMALL, settings.small), _load(settings, LARGE, settings.large)
    most = settings.actors
    processes = max(1, most // 500)  # of ZeroMQ's 1023 sockets in each
    one = Load(num_bytes=SMALL, groups=settings.groups, batches=settings.batches_of_many,
               slots=most)  # fmt: skip
    many = Load(num_bytes=SMALL, groups=settings.groups, batches=settings.batches_of_many,
                processes=processes, sessions=most // processes, slots=1)  # fmt: skip
    idle = Load(num_bytes=SMALL, groups=1, batches=settings.deliveries // ours.GROUP_SIZE,
                slots=1, pause_s=settings.pause_s)  # fmt: skip
    return {
        "small": partial(ours.deliver, small),
        "raw_small": lambda _: _raw(small),
        "polled": lambda folder: polled.deliver(
            folder, num_bytes=SMALL, count=settings.polled, slots=settings.slots
        ),
        "large": partial(ours.deliver, large),
        "raw_large": lambda _: _raw(large),
        "one": partial(ours.deliver, one),
        "thousand": partial(ours.deliver, many),
        "idle": partial(ours.deliver, idle),
    }


def _load(settings: Settings, num_bytes: int, batches: int) -> Load:
    return Load(num_bytes=num_bytes, groups=settings.groups, batches=batches, slots=settings.slots)


def _raw(load: Load) -> Measured:
    return raw.deliver(
        num_bytes=load.num_bytes, count=load.batches * load.batch, in_flight=load.slots
    )


def run(settings: Settings, folder: Path, tell: Callable[[str], None]) -> Report:
    """Measure, and report."""
    found = measure(settings, folder, tell)
    return make_report(
        "transport",
        settings=asdict(settings),
        figures=figures_of(found),
        ratios=ratios_of(found),
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()),
        help="where the journal is written; has to be on a disk",
    )  # fmt: skip
    options = parser.parse_args()
    settings = QUICK if options.quick else Settings()
    if options.rounds:
        settings = Settings(**asdict(settings) | {"rounds": options.rounds})
    console = Console()
    with console.status("") as status:
        report = run(settings, options.folder, status.update)
    report.give(console, options.json)


if __name__ == "__main__":
    main()
