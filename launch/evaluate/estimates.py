"""Intervals, pass@k and paired comparisons of scores. Pure; whatever is drawn has a seed.

The unit is the task: several samples of one task are no independent observations, so they are
averaged before anything is said about uncertainty. Shares are in [0, 1], intervals of 95 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""Quantile 0.975 of the normal distribution."""
RESAMPLES = 2000
_SEED = 20_250_601
_BLOCK = 1 << 22
"""Indices drawn at once, so that memory stays bounded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How much larger the first of two paired means is; ``p`` is two-sided."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def wilson(share: float, n: int) -> Interval:
    """The score interval of a share.

        centre = (p + z²/2n) / (1 + z²/n),  half = z/(1 + z²/n) sqrt(p(1-p)/n + z²/4n²)

    Where ``share`` is a mean of other values in [0, 1], it is at least as wide as it has to be: no
    distribution there has a larger variance than p (1 - p).

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".

    Args:
        share: p, in [0, 1].
        n: tasks; for none, nothing is known: [0, 1].
    """
    if n <= 0:
        return Interval(mean=share, low=0.0, high=1.0)
    weight = 1 + Z * Z / n
    centre = (share + Z * Z / (2 * n)) / weight
    half = Z / weight * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return Interval(
        mean=share,
        low=min(share, max(0.0, centre - half)),
        high=max(share, min(1.0, centre + half)),
    )


def bootstrap(
    values: Sequence[float], *, seed: int = _SEED, resamples: int = RESAMPLES
) -> Interval:
    """The mean of ``values``, one per task, with the percentile interval of resampled means.

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".
    """
    data = np.asarray(values, dtype=np.float64)
    if not len(data):
        return Interval(mean=0.0, low=0.0, high=1.0)
    low, high = np.quantile(resampled_means(data, seed=seed, resamples=resamples), (0.025, 0.975))
    return Interval(mean=float(data.mean()), low=float(low), high=float(high))


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of ``values``, one per task, with its interval.

    Wilson's where each is 0 or 1, and where all are the same share, of whose spread resampling
    would know nothing; else that of ``bootstrap``.
    """
    known = set(values)
    if known <= {0.0, 1.0} or (len(known) == 1 and 0 <= min(known) <= 1):
        return wilson(fmean(values) if values else 0.0, len(values))
    return bootstrap(values)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of ``k`` samples is right, without bias.

        1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1..n} (1 - k / i)

    Source: Chen et al. 2021, arXiv:2107.03374, section 2.1.

    Args:
        samples: n, drawn for one task.
        right: c of them.
        k: at most n.

    Raises:
        ValueError: ``k`` is not in 1..n, or ``right`` not in 0..n.
    """
    if not (1 <= k <= samples and 0 <= right <= samples):
        raise ValueError(f"pass@{k} of {right} right among {samples} samples is not defined")
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, seed: int = _SEED, resamples: int = 10_000
) -> Difference:
    """Bootstrap of the mean difference ``first - second`` over tasks that both were asked.

    The interval is that of the percentiles; p is twice the smaller share of resampled differences
    on one side of zero, zero included, counted with one more so that it is never 0:

        p = min(1, 2 (min(#{d* <= 0}, #{d* >= 0}) + 1) / (B + 1))

    It is never below 2^(1 - n), the least of the exact test of signs over n pairs: a few pairs that
    agree by chance have no spread to resample.

    Source: Efron & Tibshirani 1993, "An introduction to the bootstrap", chapters 13 and 16; the
    added one: Davison & Hinkley 1997, section 4.2.

    Args:
        first: one value per task.
        second: the same, in the same order.
        seed: of the resampling.
        resamples: B.

    Raises:
        ValueError: they differ in length, or are empty.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"paired scores must be as many and some: {len(first)}, {len(second)}")
    data = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    means = resampled_means(data, seed=seed, resamples=resamples)
    low, high = np.quantile(means, (0.025, 0.975))
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Difference(
        mean=float(data.mean()),
        low=float(low),
        high=float(high),
        p=min(1.0, max(2 * (tail + 1) / (resamples + 1), math.ldexp(1.0, 1 - len(data)))),
        n=len(data),
    )


def resampled_means(data: NDArray[np.float64], *, seed: int, resamples: int) -> NDArray[np.float64]:
    """Means of ``resamples`` draws with replacement of as many values as there are, [resamples]."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // len(data))
    means = [
        data[rng.integers(0, len(data), (min(block, resamples - done), len(data)))].mean(axis=1)
        for done in range(0, resamples, block)
    ]
    return np.concatenate(means)
