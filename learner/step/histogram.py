"""Histograms that add up over packs and ranks, and the percentiles that they still know."""

from dataclasses import dataclass
from math import log10

import torch
from torch import Tensor

_BINS_PER_DECADE = 16
"""A percentile is known to 15 % of its value, and exactly where all values are equal."""


@dataclass(frozen=True, slots=True)
class Bins:
    """Where one bin ends and the next begins; the first and the last one are open.

    Attributes:
        edges: ascending.
    """

    edges: tuple[float, ...]

    @classmethod
    def by_magnitude(cls, low: float, high: float, *, signed: bool) -> "Bins":
        """Bins of equal ratio from ``low`` to ``high``; ``signed``, also of negative numbers."""
        count = round(_BINS_PER_DECADE * log10(high / low))
        steps = [low * (high / low) ** (i / count) for i in range(count + 1)]
        return cls((*(-step for step in reversed(steps)), *steps) if signed else tuple(steps))

    @property
    def count(self) -> int:
        """The open ones included."""
        return len(self.edges) + 1

    def fill(self, values: Tensor, members: Tensor) -> Tensor:
        """Count values in several histograms.

        Args:
            values: [N] float, finite.
            members: [K, N] bool, which values each of K histograms holds.

        Returns:
            [K, ``count``] float64.
        """
        edges = torch.tensor(self.edges, dtype=torch.float64, device=values.device)
        places = torch.bucketize(values.double(), edges)
        counts = torch.zeros(len(members), self.count, dtype=torch.float64, device=values.device)
        return counts.index_add_(1, places, members.double())

    def percentile(self, counts: Tensor, share: float) -> float:
        """The value below which ``share`` of the numbers lie, between the edges of its bin.

        Args:
            counts: [``count``], not all 0.
            share: in [0, 1].
        """
        above = counts.cumsum(0)
        wanted = share * float(above[-1])
        place = int(torch.searchsorted(above, wanted).clamp(max=self.count - 1))
        low = self.edges[max(place - 1, 0)]
        high = self.edges[min(place, len(self.edges) - 1)]
        below = float(above[place] - counts[place])
        return low + (high - low) * (wanted - below) / max(float(counts[place]), 1e-12)
