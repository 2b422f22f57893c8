"""What packs cost, and how segments become packs that cost all ranks the same.

Attention makes a long segment dearer than short ones of the same tokens, so work is levelled by
cost, not by tokens. Ranks that share weights wait for each other in every pack: the k-th packs of
all ranks should cost the same, not only their sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Bins = list[list[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Cost of a segment of L tokens and N targets: a L + b L^2 + c N.

    Attributes:
        per_token: a.
        per_token_squared: b.
        per_target: c.
    """

    per_token: float = 1.0
    per_token_squared: float = 0.0
    per_target: float = 0.0

    def of_segment(self, tokens: int, targets: int) -> float:
        """Cost of one segment."""
        return (
            self.per_token * tokens + self.per_token_squared * tokens**2 + self.per_target * targets
        )

    def of_pack(self, lengths: Iterable[int], targets: int) -> float:
        """Cost of segments of these lengths with so many targets in all."""
        return sum(self.of_segment(length, 0) for length in lengths) + self.per_target * targets


def cost_of_model(config: Mapping[str, Any]) -> CostModel:
    """Floating-point operations of a forward pass; the backward pass is in proportion.

    With hidden size H, intermediate size I, D layers of Q heads and K key heads of size h, and V
    words, a multiplication and an addition counted as two operations:

        a = 2 D (H Q h + 2 H K h + Q h H + 3 H I)   projections and gated MLP
        b = 2 D Q h                                 scores and mixture over L / 2 keys on average
        c = 2 H V                                   output layer

    Args:
        config: of a Hugging Face model of a supported family, as in its config.json.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    key_heads = config.get("num_key_value_heads") or heads
    projections = 2 * hidden * size * (heads + key_heads)
    return CostModel(
        per_token=2.0 * layers * (projections + 3 * hidden * config["intermediate_size"]),
        per_token_squared=2.0 * layers * heads * size,
        per_target=2.0 * hidden * config["vocab_size"],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """How even the work of the ranks is.

    Attributes:
        lockstep: sum over k of the costliest k-th pack of any rank, over the mean cost of a
            rank; the time a step takes if ranks wait for each other in every pack, 1 is best.
        ranks: cost of the rank with most to do, over the mean; at most ``lockstep``.
    """

    lockstep: float
    ranks: float


def measure_balance(costs_by_rank: Sequence[Sequence[float]]) -> Balance:
    """Compare ranks by the costs of their packs, of which each rank has as many.

    Args:
        costs_by_rank: for each rank, the cost of each of its packs in order.
    """
    mean = sum(map(sum, costs_by_rank)) / len(costs_by_rank)
    if mean <= 0:
        return Balance(lockstep=1.0, ranks=1.0)
    return Balance(
        lockstep=sum(map(max, zip(*costs_by_rank, strict=True))) / mean,
        ranks=max(map(sum, costs_by_rank)) / mean,
    )


def assign_to_ranks(
    lengths: Sequence[int], costs: Sequence[float], *, budget: int, ranks: int
) -> list[Bins]:
    """Share segments among ranks in packs: as few per rank as found, all of about the same cost.

    Args:
        lengths: tokens of each segment, none above ``budget``.
        costs: of each segment.
        budget: most tokens of a pack.
        ranks: number of ranks.

    Returns:
        For each rank equally many packs, as indices of segments; some may be empty.
    """
    fewest = _first_fit_decreasing(lengths, budget)
    rounds = max(1, -(-len(fewest) // ranks))
    fewest += [[] for _ in range(rounds * ranks - len(fewest))]
    relieved = _relieve([list(each) for each in fewest], lengths, costs, budget)
    level = _level(lengths, costs, budget, len(fewest))
    choices = [_deal(bins, costs, ranks) for bins in (level, relieved, fewest) if bins is not None]
    return min(choices, key=lambda shares: measure_balance(_costs_of(shares, costs)).lockstep)


def _deal(bins: Bins, costs: Sequence[float], ranks: int) -> list[Bins]:
    """Costliest first, a round to each rank, every second round backwards."""
    bins = sorted(bins, key=lambda members: -sum(costs[i] for i in members))
    deals = [bins[start : start + ranks] for start in range(0, len(bins), ranks)]
    turned = [deal[::-1] if number % 2 else deal for number, deal in enumerate(deals)]
    return [[deal[rank] for deal in turned] for rank in range(ranks)]


def _costs_of(shares: list[Bins], costs: Sequence[float]) -> list[list[float]]:
    return [[sum(costs[i] for i in members) for members in share] for share in shares]


def _first_fit_decreasing(lengths: Sequence[int], budget: int) -> Bins:
    """Put each length, longest first, into the first bin with room; indices per bin."""
    bins: Bins = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for number, free in enumerate(room):
            if lengths[index] <= free:
                bins[number].append(index)
                room[number] -= lengths[index]
                break
        else:
            bins.append([index])
            room.append(budget - lengths[index])
    return bins


def _level(
    lengths: Sequence[int], costs: Sequence[float], budget: int, num_bins: int
) -> Bins | None:
    """Put each segment, costliest first, into the cheapest bin with room; None if none has."""
    bins: Bins = [[] for _ in range(num_bins)]
    spent, filled = [0.0] * num_bins, [0] * num_bins
    for index in sorted(range(len(lengths)), key=lambda i: -costs[i]):
        fitting = [n for n in range(num_bins) if filled[n] + lengths[index] <= budget]
        if not fitting:
            return None
        cheapest = min(fitting, key=spent.__getitem__)
        bins[cheapest].append(index)
        spent[cheapest] += costs[index]
        filled[cheapest] += lengths[index]
    return bins


def _relieve(bins: Bins, lengths: Sequence[int], costs: Sequence[float], budget: int) -> Bins:
    """Move segments from costly bins to the cheapest for as long as that levels the two."""
    spent = [sum(costs[i] for i in members) for members in bins]
    filled = [sum(lengths[i] for i in members) for members in bins]
    costly = set(range(len(bins)))
    while costly:
        high = max(costly, key=spent.__getitem__)
        low = min(range(len(bins)), key=spent.__getitem__)
        movable = [
            i
            for i in bins[high]
            if spent[low] + costs[i] < spent[high] and filled[low] + lengths[i] <= budget
        ]
        if not movable:
            costly.remove(high)
            continue
        index = max(movable, key=costs.__getitem__)
        bins[high].remove(index)
        bins[low].append(index)
        for number, sign in ((high, -1), (low, 1)):
            spent[number] += sign * costs[index]
            filled[number] += sign * lengths[index]
    return bins
