"""The terms of a reward: each turns a finished episode into one number per step.

Source: the weights and formulas of Zhang et al. 2025 (L0), arXiv:2506.23667, with a binary code
term, a strict format term and F1 in place of "has an answer"; docs/rewards.md says why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.chat import parse_action
from common.config import Rewards
from common.wire.records import Outcome, Step, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedEpisode:
    """What a reward term may look at. There is at least one step.

    Attributes:
        task: the task, with its gold answers and details.
        answer: the submitted answer if it counts, else None.
        steps: actions, cells and observations in order; text that the policy wrote and caused.
        outcome: how it ended.
        measures: what the task's type measured of the answer, e.g. ``exact_match``.
        settings: the section ``[rewards]``.
    """

    task: Task
    answer: str | None
    steps: tuple[Step, ...]
    outcome: Outcome
    measures: Mapping[str, float]
    settings: Rewards

    def on_last_step(self, value: float) -> list[float]:
        """``value`` on the last step, 0 before."""
        return [0.0] * (len(self.steps) - 1) + [value]

    def per_step(self, worth: Callable[[Step], float]) -> list[float]:
        """``worth`` of each step divided by the number of steps K.

        The sum is the mean worth, so it cannot grow with K.
        """
        return [worth(step) / len(self.steps) for step in self.steps]


RewardTerm = Callable[[FinishedEpisode], Sequence[float]]
"""Gives one finite number for each step; its weight is not its own business."""


def exact_match_term(episode: FinishedEpisode) -> Sequence[float]:
    """1 on the last step if the answer is right."""
    return episode.on_last_step(episode.measures["exact_match"])


def f1_term(episode: FinishedEpisode) -> Sequence[float]:
    """Token F1 of the answer on the last step."""
    return episode.on_last_step(episode.measures["f1"])


def has_answer_term(episode: FinishedEpisode) -> Sequence[float]:
    """1 on the last step if an answer was submitted that is not blank."""
    return episode.on_last_step(float(bool((episode.answer or "").strip())))


def format_term(episode: FinishedEpisode) -> Sequence[float]:
    """Share of actions that are one think and one code block, neither of them empty."""
    return episode.per_step(_is_well_formed)


def code_term(episode: FinishedEpisode) -> Sequence[float]:
    """Share of steps whose cell ran to its end: no error, no time-out. Output is not needed.

    The sandbox says whether there was an error, and what runs in it can forge that: never give this
    term a weight that would pay for it. A bare ``except: pass`` wins as much.
    """
    return episode.per_step(lambda step: float(step.status == "ok"))


def terse_term(episode: FinishedEpisode) -> Sequence[float]:
    """Share of actions whose think or code is too short to mean anything.

    At most 10 characters of thought or 5 of code: filler, or a dummy cell. For the record, or for a
    negative weight.
    """
    return episode.per_step(_is_terse)


def length_term(episode: FinishedEpisode) -> Sequence[float]:
    """Share of ``rewards.length_tokens`` that was sampled, at most 1, on the steps that did.

    t_k / max(sum of t, limit): the sum depends on the tokens only, not on how many steps they
    were spread over. Meant for a negative weight.
    """
    total = sum(step.tokens for step in episode.steps)
    limit = max(total, episode.settings.length_tokens)
    return [step.tokens / limit for step in episode.steps]


def unparsable_term(episode: FinishedEpisode) -> Sequence[float]:
    """1 on the last step if its action did not parse, which ends an episode."""
    return episode.on_last_step(float(episode.outcome is Outcome.UNPARSABLE))


def _is_well_formed(step: Step) -> float:
    action = parse_action(step.action)
    return float(action is not None and bool(action.think.strip()))


def _is_terse(step: Step) -> float:
    action = parse_action(step.action)
    if action is None:
        return 0.0
    return float(len(action.think.strip()) <= 10 or len(action.code.strip()) <= 5)


TERMS: dict[str, RewardTerm] = {
    "exact_match": exact_match_term,
    "f1": f1_term,
    "has_answer": has_answer_term,
    "format": format_term,
    "code": code_term,
    "terse": terse_term,
    "length": length_term,
    "unparsable": unparsable_term,
}
"""The built-in terms by name; those of the preset ``l0_v1`` are in ``l0_v1.py``."""
