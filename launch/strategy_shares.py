"""Which strategies a policy used: the share of episodes per strategy and family."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from launch.episodes import Episode


def strategy_shares(episodes: Iterable[Episode]) -> dict[str, dict[str, float]]:
    """Family to strategy to share of its episodes, the most frequent first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for episode in episodes:
        counts[episode.family][strategy_of(episode)] += 1
    return {
        family: {name: count / counter.total() for name, count in counter.most_common()}
        for family, counter in sorted(counts.items())
    }


def strategy_of(episode: Episode) -> str:
    """A name for how the episode was gone about, from its tool calls and its answer."""
    searches = sum(call == "search" for step in episode.steps for call in step.tool_calls)
    if episode.answer is None:
        return "no answer"
    return {0: "guess", 1: "one search", 2: "two searches"}.get(searches, "many searches")
