"""Scores finished episodes: a weighted sum of named terms, and measurements for the record.

consumes   task, submitted answer, steps and outcome, all told by the host, never by the sandbox
produces   one reward per step, and named scores
waits for  nothing
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.rewards.answers import MAX_CHARACTERS
from actors.rewards.l0_v1 import L0_TERMS
from actors.rewards.task_types import measure_answer
from actors.rewards.terms import TERMS, FinishedEpisode, RewardTerm
from common.config import Rewards
from common.errors import ConfigError, PluginError
from common.messages import Float32, Outcome, Step, Task
from common.plugins import is_plugin, load_plugin

PRESETS: Mapping[str, Mapping[str, float]] = {
    "default": {"exact_match": 0.72, "f1": 0.08, "format": 0.1, "code": 0.1},
    "l0_v1": {"l0_qa": 0.8, "l0_format": 0.1, "l0_code": 0.1},
    "none": {},
}
"""Weights by term name, for each value of ``rewards.preset``."""

_KNOWN = TERMS | L0_TERMS
_PROCESS = frozenset({"format", "code", "l0_format", "l0_code"})
_ANSWER_VOID = frozenset({Outcome.TIMED_OUT, Outcome.KERNEL_DIED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Step rewards [K] and the scores they were made of."""

    step_rewards: Float32
    scores: dict[str, float]


class Scorer:
    """Scores episodes by one ``[rewards]`` section; keeps no state between episodes."""

    def __init__(self, rewards: Rewards) -> None:
        """Look up the terms.

        Raises:
            ConfigError: a term does not exist or cannot be imported, or a weight is not finite.
        """
        self._settings = rewards
        self._weights = {**PRESETS[rewards.preset], **rewards.terms}
        for name, weight in self._weights.items():
            if not math.isfinite(weight):
                raise ConfigError(f"rewards.terms.{name} must be a finite number, got {weight}")
        self._terms = TERMS | {name: find_term(name) for name in self._weights}

    def score(
        self, task: Task, answer: str | None, steps: tuple[Step, ...], outcome: Outcome
    ) -> Scored:
        """Score one episode.

        The answer of an episode that timed out, killed its kernel or failed through us does not
        count. An episode without steps has no rewards, and one that failed through us has rewards
        and scores of 0, without asking any code of the user's.

        Raises:
            PluginError: a user's term or task type failed, or returned something unusable.
            ConfigError: the task's kind does not exist.
        """
        nothing = dict.fromkeys((*self._terms, "contains", "submitted"), 0.0)
        if outcome is Outcome.INFRASTRUCTURE:
            return Scored(step_rewards=np.zeros(len(steps), dtype=np.float32), scores=nothing)
        counted = _counted_answer(answer, outcome)
        measures = measure_answer(task, counted)
        facts = measures | {"submitted": float(answer is not None)}
        if not steps:
            return Scored(step_rewards=np.zeros(0, dtype=np.float32), scores=nothing | facts)
        episode = FinishedEpisode(
            task=task,
            answer=counted,
            steps=steps,
            outcome=outcome,
            measures=measures,
            settings=self._settings,
        )
        values = {name: _values(name, term, episode) for name, term in self._terms.items()}
        sums = {name: float(value.sum()) for name, value in values.items()}
        return Scored(step_rewards=self._weigh(values, episode), scores=nothing | sums | facts)

    def _weigh(
        self, values: Mapping[str, NDArray[np.float64]], episode: FinishedEpisode
    ) -> Float32:
        withheld = self._settings.process_requires_submission and episode.answer is None
        rewards = np.zeros(len(episode.steps), dtype=np.float64)
        for name, weight in self._weights.items():
            if not (withheld and name in _PROCESS):
                rewards += weight * values[name]
        return rewards.astype(np.float32)


def _counted_answer(answer: str | None, outcome: Outcome) -> str | None:
    if answer is None or outcome in _ANSWER_VOID:
        return None
    return answer[:MAX_CHARACTERS]


def find_term(name: str) -> RewardTerm:
    """The reward term called ``name``, built in or ``package.module:name``.

    Raises:
        ConfigError: there is none, or it is not a function.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    if not is_plugin(name):
        close = difflib.get_close_matches(name, _KNOWN, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known terms: {', '.join(_KNOWN)}."
        raise ConfigError(
            f"rewards.terms: unknown term {name!r}; {hint} One of your own is written "
            "package.module:name"
        )
    term = load_plugin(name, key="rewards.terms")
    if not callable(term) or isinstance(term, type):
        raise ConfigError(
            f"rewards.terms: {name!r} must be a function from a FinishedEpisode to one number per "
            f"step, got {term!r}"
        )
    found: RewardTerm = term
    return found


def _values(name: str, term: RewardTerm, episode: FinishedEpisode) -> NDArray[np.float64]:
    """What a term gives, [K]; a user's term is checked."""
    wanted = len(episode.steps)
    try:
        values = np.asarray(term(episode), dtype=np.float64)
    except Exception as error:  # a user's term may raise anything
        raise PluginError(
            f"rewards.terms: {name!r} failed for task {episode.task.task_id!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if values.shape != (wanted,):
        raise PluginError(
            f"rewards.terms: {name!r} must return one number for each of the {wanted} steps of "
            f"task {episode.task.task_id!r}, got an array of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        raise PluginError(
            f"rewards.terms: {name!r} must return finite numbers, got {values.tolist()} for task "
            f"{episode.task.task_id!r}"
        )
    return values
