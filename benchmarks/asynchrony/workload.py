"""Episodes whose times have a long tail, and what two kinds of training make of them.

Pure. An episode takes exp(mu + sigma z) seconds, z standard normal, with exp(mu) the median. That
the 99th percentile be ten times the median asks for exp(sigma z99) = 10, z99 = 2.3263 being the
99th percentile of z: sigma = ln 10 / z99 = 0.98980. The mean is exp(sigma^2 / 2) = 1.632 medians
(log-normal distribution).
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import exp, log
from statistics import NormalDist

from common.json_output import json_text

_Z = NormalDist()
TAIL = 10.0
"""99th percentile of episode times, in medians."""
SIGMA = log(TAIL) / _Z.inv_cdf(0.99)
MEAN = exp(SIGMA**2 / 2)
"""Of episode times, in medians."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """One training, synchronous or not.

    Attributes:
        slots: episodes at once.
        groups: of a batch.
        group_size: trajectories of a group.
        median_s: of the time of an episode, seconds.
        train_over_generation: time of a step over that in which all slots generate a batch.
        max_staleness: the bound; 0 is synchronous.
        batches: that are taken.
        counted_from: the batch (from 0) at which the clock starts.
        seed: of the episode times.
    """

    slots: int
    groups: int
    group_size: int
    median_s: float
    train_over_generation: float
    max_staleness: int
    batches: int
    counted_from: int
    seed: int = 0

    @property
    def batch(self) -> int:
        """Trajectories of a batch."""
        return self.groups * self.group_size

    @property
    def generation_s(self) -> float:
        """In which all slots, always at work, generate a batch: mean episode x batch / slots."""
        return MEAN * self.median_s * self.batch / self.slots

    @property
    def train_s(self) -> float:
        """Of a step."""
        return self.train_over_generation * self.generation_s

    def episode_s(self, group_id: str, sample_index: int) -> float:
        """What the member of a group takes, whenever and however often it is tried."""
        name = f"{self.seed}/{group_id}/{sample_index}".encode()
        drawn = int.from_bytes(hashlib.blake2b(name, digest_size=6).digest(), "big")
        return self.median_s * exp(SIGMA * _Z.inv_cdf((drawn + 0.5) / 2**48))


def written(workload: Workload) -> str:
    """What ``read_workload`` reads back, in another process."""
    return json_text(asdict(workload))


def read_workload(text: str) -> Workload:
    """The workload that ``written`` wrote."""
    return Workload(**json.loads(text))


def scheduled_s(times: Iterable[float], slots: int) -> float:
    """When the last of these episodes ends, begun in order as slots become free, seconds."""
    rest = iter(times)
    ends = list(islice(rest, slots))
    heapq.heapify(ends)
    for seconds in rest:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def synchronous_s(generated: Sequence[Sequence[float]], workload: Workload) -> float:
    """Seconds of these batches by the closed form: each ends with its slowest episode, then trains.

    Args:
        generated: the time of each episode of each batch, in the order in which they begin.
        workload: says slots and the time of a step.
    """
    return sum(scheduled_s(times, workload.slots) + workload.train_s for times in generated)


def ceiling_s(generated: Sequence[Sequence[float]], workload: Workload) -> float:
    """Least seconds of these batches: all slots always at work, or the learner, the slower one."""
    episodes_s = sum(map(sum, generated))
    return max(episodes_s / workload.slots, len(generated) * workload.train_s)
