"""The reward of an episode, step by step, as a weighted sum of named terms."""

from dataclasses import dataclass

import numpy as np

from actors.rewards.answers import contains, exact_match, f1
from common.config import Rewards
from common.messages import Float32, Task

MAX_ANSWER_CHARACTERS = 4096
"""Longer answers are cut before they are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Step rewards [K] and the scores they were made of."""

    step_rewards: Float32
    scores: dict[str, float]


def score(
    task: Task, answer: str | None, *, steps: int, unparsable: bool, weights: Rewards
) -> Scored:
    """Score an episode of ``steps`` actions.

    The answer counts on the last step; an action that does not parse ends the episode, so its
    term falls on the last step as well. An episode without actions has no rewards.
    """
    given = (answer or "")[:MAX_ANSWER_CHARACTERS]
    scores = {
        "exact_match": exact_match(given, task.answers),
        "f1": f1(given, task.answers),
        "contains": contains(given, task.answers),
        "submitted": float(answer is not None),
        "unparsable": float(unparsable),
    }
    rewards = np.zeros(steps, dtype=np.float32)
    if steps:
        rewards[-1] = (
            weights.terms.get("exact_match", 0.0) * scores["exact_match"]
            + weights.terms.get("f1", 0.0) * scores["f1"]
            + weights.terms.get("unparsable", 0.0) * scores["unparsable"]
        )
    return Scored(step_rewards=rewards, scores=scores)
