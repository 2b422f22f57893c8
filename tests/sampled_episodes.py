"""Episodes of token ids: several turns, observations, and a context that is trimmed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.wire.records import NOT_AN_ACTION, Segment

Sampler = Callable[[list[int], int], tuple[list[int], list[float]]]
"""(context, a seed) to the ids of an action, its stop token included, and their scores."""

TURNS, TRIMMED_AT = 4, 3
FIRST_WORD = 3


@dataclass(frozen=True, kw_only=True)
class Episode:
    """The segments of one episode, and its actions in order."""

    segments: tuple[Segment, ...]
    actions: tuple[tuple[int, ...], ...]


def run_episode(sample: Sampler, *, number: int, vocabulary: int) -> Episode:
    """Four actions; before the last one the context is cut to the task and the newest step."""
    rng = np.random.default_rng(number)

    def words(count: int) -> list[int]:
        return rng.integers(FIRST_WORD, vocabulary, count).tolist()

    task = words(int(rng.integers(2, 9)))
    context, owners, scores = list(task), [NOT_AN_ACTION] * len(task), [0.0] * len(task)
    segments, actions = [], []
    for turn in range(TURNS):
        if turn == TRIMMED_AT:
            segments.append(_segment(context, owners, scores))
            context = task + context[-6:]
            owners, scores = [NOT_AN_ACTION] * len(context), [0.0] * len(context)
        ids, logprobs = sample(list(context), 1000 * number + turn)
        actions.append(tuple(ids))
        observation = words(int(rng.integers(1, 5)))
        context += [*ids, *observation]
        owners += [turn] * len(ids) + [NOT_AN_ACTION] * len(observation)
        scores += [*logprobs, *[0.0] * len(observation)]
    segments.append(_segment(context, owners, scores))
    return Episode(segments=tuple(segments), actions=tuple(actions))


def _segment(context: Sequence[int], owners: Sequence[int], scores: Sequence[float]) -> Segment:
    index = np.array(owners, dtype=np.int32)
    return Segment(
        token_ids=np.array(context, dtype=np.int32),
        action_index=index,
        behaviour_logprobs=np.array(scores, dtype=np.float32),
        versions=np.where(index == NOT_AN_ACTION, NOT_AN_ACTION, 0).astype(np.int32),
    )
