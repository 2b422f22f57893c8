"""What the rounds of all ways come to: medians, spreads and ratios."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.transport.work import Measured

Rounds = Sequence[Measured]


@dataclass(frozen=True, kw_only=True)
class Found:
    """The rounds of every way; those of one comparison took turns.

    Attributes:
        small, raw_small, large, raw_large: trajectories of about ``small_bytes`` and
            ``large_bytes`` by our path and by pyzmq alone.
        polled: small ones by pickled files.
        one, thousand: small ones of one actor and of many, as many leases out at once.
        idle: small ones of one actor that delivers one at a time.
    """

    small_bytes: int
    large_bytes: int
    small: Rounds
    raw_small: Rounds
    large: Rounds
    raw_large: Rounds
    polled: Rounds
    one: Rounds
    thousand: Rounds
    idle: Rounds


def figures_of(found: Found) -> dict[str, float | None]:
    """Medians over the rounds, with the least and the largest where they are rates or costs."""
    figures: dict[str, float | None] = {}
    for name, rounds, num_bytes in (
        ("small", found.small, found.small_bytes), ("large", found.large, found.large_bytes),
        ("raw_small", found.raw_small, found.small_bytes),
        ("raw_large", found.raw_large, found.large_bytes),
        ("polled", found.polled, found.small_bytes),
    ):  # fmt: skip
        rates = [one.per_s for one in rounds]
        figures |= _spread(f"{name}_trajectories_per_s", rates)
        figures[f"{name}_mb_per_s"] = statistics.median(rates) * num_bytes / 1e6
    for name, rounds in (
        ("small", found.small), ("large", found.large), ("raw_small", found.raw_small),
        ("raw_large", found.raw_large), ("1_actor", found.one), ("1000_actors", found.thousand),
    ):  # fmt: skip
        figures |= _spread(f"{name}_learner_cpu_ms", [one.cpu_ms for one in rounds])
    idle, polled = _deliveries(found.idle), _deliveries(found.polled)
    every = (*found.small, *found.large, *found.one, *found.thousand, *found.idle)
    return figures | {
        "delivery_ms_p50": statistics.median(idle),
        "delivery_ms_p99": statistics.quantiles(idle, n=100)[98],
        "polled_delivery_ms_p50": statistics.median(polled),
        "lost": float(sum(one.lost for one in every)),
        "duplicated": float(sum(one.duplicated for one in every)),
    }


def ratios_of(found: Found) -> dict[str, float | None]:
    """Ours divided by the other's, the median over the rounds; a round is compared with its own."""
    return {
        "vs_raw_pyzmq": _rates(found.large, found.raw_large),
        "vs_raw_pyzmq_small": _rates(found.small, found.raw_small),
        "vs_polled_files": _rates(found.small, found.polled),
        "cost_1000_vs_1": statistics.median(
            many.cpu_ms / one.cpu_ms for many, one in zip(found.thousand, found.one, strict=True)
        ),
    }


def _rates(ours: Rounds, theirs: Rounds) -> float:
    return statistics.median(a.per_s / b.per_s for a, b in zip(ours, theirs, strict=True))


def _spread(name: str, values: Sequence[float]) -> dict[str, float | None]:
    return {
        name: statistics.median(values), f"{name}_least": min(values), f"{name}_most": max(values)
    }  # fmt: skip


def _deliveries(rounds: Rounds) -> list[float]:
    return [ms for one in rounds for ms in one.delivery_ms]
