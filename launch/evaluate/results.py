"""From episodes to scores with intervals. Pure.

A task counts once: the scores of its samples are averaged first. Episodes that failed through the
machinery are no observations of the model; they are counted apart.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from actors.rewards.task_types import task_type
from common.episode_record import EvaluationRecord
from common.wire.records import Outcome
from launch.evaluate.estimates import Interval, mean_interval, pass_at_k
from launch.evaluate.folder import EvalSettings
from launch.evaluate.request import Prices

MAIN = "exact_match"
_ORDER = (MAIN, "squad_exact_match", "f1", "squad_f1", "contains")


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupResult:
    """Scores of the tasks of a set, of one family of it, or of all sets.

    Attributes:
        tasks: with at least one episode that counts.
        episodes: that count.
        failed: episodes that failed through the machinery.
        scores: by measure; a mean over tasks with its interval. Empty without tasks.
        pass_at: chance that one of k samples is right, by k.
        submitted: share of episodes with an answer.
        prompt_tokens, generated_tokens, steps, seconds: means over episodes.
        cost: mean over episodes; None without prices.
    """

    tasks: int
    episodes: int
    failed: int
    scores: dict[str, Interval]
    pass_at: dict[int, Interval]
    submitted: float
    prompt_tokens: float
    generated_tokens: float
    steps: float
    seconds: float
    cost: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What an evaluation says.

    Attributes:
        sets: by name, in the order asked.
        families: by set, then by the label ``family``; only where a set has several.
        overall: all tasks of all sets; None for one set.
        mean_of_sets: mean over sets of each measure that all of them have; empty for one set.
        missing: sets of the suite that were not there.
        failures: why episodes failed through the machinery, and how many, the most common first.
    """

    sets: dict[str, GroupResult]
    families: dict[str, dict[str, GroupResult]]
    overall: GroupResult | None
    mean_of_sets: dict[str, float]
    missing: tuple[str, ...] = ()
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Episodes of all sets that failed through the machinery."""
        return sum(group.failed for group in self.sets.values())


@dataclass(slots=True)
class TaskEpisodes:
    """The episodes of one task that count."""

    records: list[EvaluationRecord] = field(default_factory=list)

    def mean(self, measure: str) -> float:
        """Of a score over the samples."""
        return fmean(record.scores.get(measure, 0.0) for record in self.records)

    @property
    def right(self) -> int:
        """Samples that count as right."""
        return sum(record.is_exact for record in self.records)


def score(
    settings: EvalSettings,
    records: Sequence[EvaluationRecord],
    prices: Prices,
    missing: Sequence[str] = (),
) -> Results:
    """The scores of all sets."""
    by_set: defaultdict[str, list[EvaluationRecord]] = defaultdict(list)
    for record in records:
        by_set[record.question_set].append(record)
    sets = {name: score_group(by_set[name], prices) for name in settings.names}
    shared = [m for m in _ORDER if all(m in group.scores for group in sets.values())]
    several = len(sets) > 1
    return Results(
        sets=sets,
        families={name: found for name in sets if (found := _families(by_set[name], prices))},
        overall=score_group(records, prices) if several else None,
        mean_of_sets={m: fmean(group.scores[m].mean for group in sets.values()) for m in shared}
        if several
        else {},
        missing=tuple(missing),
        failures=dict(
            Counter(_cause(record) for record in records if _is_lost(record)).most_common()
        ),
    )


def _cause(record: EvaluationRecord) -> str:
    """Why an episode failed, whichever its task, so that one cause of many is counted as one."""
    return re.sub(rf" of task {re.escape(repr(record.task.task_id))}", "", record.failure)


def score_group(records: Sequence[EvaluationRecord], prices: Prices) -> GroupResult:
    """The scores of these episodes together."""
    kept = counting(records)
    tasks = list(by_task(kept).values())
    prompt, generated = (_mean([getattr(r, name) for r in kept]) for name in _TOKENS)
    return GroupResult(
        tasks=len(tasks),
        episodes=len(kept),
        failed=len(records) - len(kept),
        scores={
            name: mean_interval([task.mean(name) for task in tasks]) for name in measures_of(kept)
        },
        pass_at=_pass_at(tasks),
        submitted=_mean([float(record.answer is not None) for record in kept]),
        prompt_tokens=prompt,
        generated_tokens=generated,
        steps=_mean([len(record.steps) for record in kept]),
        seconds=_mean([record.seconds for record in kept]),
        cost=prices.cost(prompt, generated),
    )


_TOKENS = ("prompt_tokens", "tokens_generated")


def counting(records: Sequence[EvaluationRecord]) -> list[EvaluationRecord]:
    """Those that did not fail through the machinery."""
    return [record for record in records if not _is_lost(record)]


def by_task(records: Sequence[EvaluationRecord]) -> dict[tuple[str, str], TaskEpisodes]:
    """The episodes of each task, by set and id."""
    tasks: defaultdict[tuple[str, str], TaskEpisodes] = defaultdict(TaskEpisodes)
    for record in records:
        tasks[record.question_set, record.task.task_id].records.append(record)
    return dict(tasks)


def measures_of(records: Sequence[EvaluationRecord]) -> tuple[str, ...]:
    """What all kinds of these tasks measure, the well-known ones first; nothing without any."""
    kinds = {record.task.kind for record in records}
    shared = (
        set.intersection(*(set(task_type(kind).measures) for kind in kinds)) if kinds else set()
    )
    return tuple(m for m in _ORDER if m in shared) + tuple(sorted(shared - set(_ORDER)))


def _pass_at(tasks: Sequence[TaskEpisodes]) -> dict[int, Interval]:
    """For 1, 2, 4, ... and as many samples as every task has; nothing for one sample."""
    most = min((len(task.records) for task in tasks), default=0)
    if most < 2:
        return {}
    ks = sorted({1 << power for power in range(most.bit_length())} | {most})
    return {
        k: mean_interval([pass_at_k(len(task.records), task.right, k) for task in tasks])
        for k in ks
    }


def _families(records: Sequence[EvaluationRecord], prices: Prices) -> dict[str, GroupResult]:
    families: defaultdict[str, list[EvaluationRecord]] = defaultdict(list)
    for record in records:
        families[record.family].append(record)
    if len(families) < 2:
        return {}
    return {name: score_group(families[name], prices) for name in sorted(families)}


def _is_lost(record: EvaluationRecord) -> bool:
    return record.outcome == Outcome.INFRASTRUCTURE


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
