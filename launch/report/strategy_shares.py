"""Which strategies a policy used: the share of episodes in which each occurs, by family."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from common.episode_record import EvaluationRecord
from launch.data.world.strategies import Strategy, strategies


def strategy_shares(episodes: Iterable[EvaluationRecord]) -> dict[str, dict[str, float]]:
    """Family to strategy to the share of its episodes that used it at least once.

    Shares of one family can add up to more than 1: an episode may search in several ways.
    """
    counts: dict[str, Counter[Strategy]] = defaultdict(Counter)
    sizes: Counter[str] = Counter()
    for episode in episodes:
        sizes[episode.family] += 1
        counts[episode.family].update(set(strategies(episode.task, episode.steps)))
    return {
        family: {
            strategy.value: used[strategy] / sizes[family]
            for strategy in Strategy
            if used[strategy]
        }
        for family, used in sorted(counts.items())
    }
