"""Scores finished episodes: a weighted sum of named terms, and measurements for the record.

consumes   task, submitted answer, steps and outcome, all told by the host, never by the sandbox
produces   one reward per step, and named scores
waits for  code of the user's, without a limit: an actor has it run by ``judge.py``
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.rewards.answers import MAX_CHARACTERS
from actors.rewards.blame import place_of, place_of_function, told
from actors.rewards.l0_v1 import L0_TERMS
from actors.rewards.returned import checked_numbers
from actors.rewards.task_types import kind_name, measure_answer
from actors.rewards.terms import TERMS, FinishedEpisode, RewardTerm
from common.config import Rewards
from common.errors import ConfigError, PluginError
from common.plugins import is_plugin, load_plugin
from common.wire.records import Float32, Outcome, Step, Task

PRESETS: Mapping[str, Mapping[str, float]] = {
    "default": {"exact_match": 0.72, "f1": 0.08, "format": 0.1, "code": 0.1},
    "l0_v1": {"l0_qa": 0.8, "l0_format": 0.1, "l0_code": 0.1},
    "none": {},
}
"""Weights by term name, for each value of ``rewards.preset``."""

_FACTS = ("contains", "submitted")
_KNOWN = TERMS | L0_TERMS
_PROCESS = frozenset({"format", "code", "l0_format", "l0_code"})
_ANSWER_VOID = frozenset({Outcome.TIMED_OUT, Outcome.KERNEL_DIED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Step rewards [K] and the scores they were made of."""

    step_rewards: Float32
    scores: dict[str, float]


def no_scores(rewards: Rewards, steps: int) -> Scored:
    """What an episode of so many steps gets that failed through us: 0 everywhere."""
    names = (*TERMS, *weights(rewards), *_FACTS)
    return Scored(step_rewards=np.zeros(steps, dtype=np.float32), scores=dict.fromkeys(names, 0.0))


def weights(rewards: Rewards) -> dict[str, float]:
    """Weight by term name: those of the preset, with the configured ones over them."""
    return {**PRESETS[rewards.preset], **rewards.terms}


def void_answer(outcome: Outcome) -> bool:
    """Whether no answer counts in an episode that ended so."""
    return outcome in _ANSWER_VOID


def counted_answer(answer: str | None, outcome: Outcome) -> str | None:
    """What is compared with the gold answers: None where no answer counts, else its beginning."""
    if answer is None or void_answer(outcome):
        return None
    return answer[:MAX_CHARACTERS]


def term_name(name: str) -> str:
    """A term as errors call it."""
    return f"rewards.terms: {name!r}"


class Scorer:
    """Scores episodes by one ``[rewards]`` section; keeps no state between episodes."""

    def __init__(self, rewards: Rewards, *, on_call: Callable[[str], None] | None = None) -> None:
        """Look up the terms.

        Args:
            rewards: the section.
            on_call: hears the name of each term and task type before its code runs.

        Raises:
            ConfigError: a term does not exist or cannot be imported.
        """
        self._settings = rewards
        self._weights = weights(rewards)
        self._on_call = on_call or (lambda name: None)
        self._terms = TERMS | {name: self._find(name) for name in self._weights}

    def score(
        self,
        task: Task,
        answer: str | None,
        steps: tuple[Step, ...],
        outcome: Outcome,
        measured: Mapping[str, float] | None = None,
    ) -> Scored:
        """Score one episode; ``measured`` is what the actor measured of the answer, if it did.

        The answer of an episode that timed out or killed its kernel does not count. An episode
        without steps has no rewards. One that failed through us gets ``no_scores`` instead.

        Raises:
            PluginError: a user's term or task type failed, or returned something unusable.
            ConfigError: the task's kind does not exist.
        """
        nothing = no_scores(self._settings, len(steps))
        counted = counted_answer(answer, outcome)
        self._on_call(kind_name(task.kind))
        measures = measure_answer(task, counted, measured)
        facts = measures | {"submitted": float(answer is not None)}
        if not steps:
            return Scored(step_rewards=nothing.step_rewards, scores=nothing.scores | facts)
        episode = FinishedEpisode(
            task=task,
            answer=counted,
            steps=steps,
            outcome=outcome,
            measures=measures,
            settings=self._settings,
        )
        values = {name: self._values(name, episode) for name in self._terms}
        sums = {name: float(value.sum()) for name, value in values.items()}
        return Scored(
            step_rewards=self._weigh(values, episode), scores=nothing.scores | sums | facts
        )

    def _find(self, name: str) -> RewardTerm:
        self._on_call(term_name(name))
        return find_term(name)

    def _values(self, name: str, episode: FinishedEpisode) -> NDArray[np.float64]:
        """What a term gives, [K]; a user's term is checked."""
        if is_plugin(name):
            self._on_call(term_name(name))
        term, wanted = self._terms[name], len(episode.steps)
        try:
            given: object = term(episode)
        except Exception as error:  # a user's term may raise anything
            raise PluginError(
                f"{term_name(name)} failed for task {episode.task.task_id!r}: {told(error)}"
            ) from error
        try:
            return np.array(checked_numbers(given, wanted), dtype=np.float64)
        except Exception as error:  # a generator of the user's, or an object, may raise anything
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            raise PluginError(
                f"{term_name(name)} must return one number for each of the {wanted} steps of task "
                f"{episode.task.task_id!r}, got {kind}{error}"
                f"{place_of(error) or place_of_function(term)}"
            ) from error

    def _weigh(
        self, values: Mapping[str, NDArray[np.float64]], episode: FinishedEpisode
    ) -> Float32:
        withheld = self._settings.process_requires_submission and episode.answer is None
        rewards = np.zeros(len(episode.steps), dtype=np.float64)
        for name, weight in self._weights.items():
            if not (withheld and name in _PROCESS):
                rewards += weight * values[name]
        return rewards.astype(np.float32)


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
