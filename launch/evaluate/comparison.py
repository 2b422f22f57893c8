"""Compares two results over the tasks that both asked: paired differences. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from common.episode_record import EvaluationRecord
from common.errors import InputError
from common.wire.records import Task
from launch.evaluate.estimates import Difference, paired_difference
from launch.evaluate.results import TaskEpisodes, by_task, counting, measures_of

_NOTHING_IN_COMMON = "--against {}: no task that was asked there is asked here, too"

Key = tuple[str, str]
"""Of a task: its set and its id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Differences of a result to another one, by set (of the first) and measure.

    Attributes:
        other: folder of the second.
        sets: by name.
        overall: over all of them; empty for one.
        common: tasks that both asked.
        changed: ids that both have, but with another question; left out.
    """

    other: str
    sets: dict[str, dict[str, Difference]]
    overall: dict[str, Difference]
    common: int
    changed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    first: TaskEpisodes
    second: TaskEpisodes


def check_comparable(tasks: Iterable[Task], second: Sequence[EvaluationRecord], other: str) -> None:
    """Look before anything is asked whether the second result will have a task in common.

    Raises:
        InputError: it has none.
    """
    there = {(record.task.task_id, record.task.question) for record in counting(second)}
    if not any((task.task_id, task.question) in there for task in tasks):
        raise InputError(_NOTHING_IN_COMMON.format(other))


def compare_results(
    first: Sequence[EvaluationRecord],
    second: Sequence[EvaluationRecord],
    other: str,
    names: Sequence[str],
) -> Comparison:
    """The first result minus the second, over the tasks of both.

    A task is the same by its id, of the set of the same name where there is one. ``names`` are
    those of the first result's sets, in their order.

    Raises:
        InputError: they have no task in common.
    """
    found = list(_pairs(by_task(counting(first)), by_task(counting(second))))
    same = [pair for pair in found if _question(pair.first) == _question(pair.second)]
    if not same:
        raise InputError(_NOTHING_IN_COMMON.format(other))
    groups: defaultdict[str, list[_Pair]] = defaultdict(list)
    for pair in same:
        groups[pair.first.records[0].question_set].append(pair)
    return Comparison(
        other=other,
        sets={name: _differences(groups[name]) for name in names if name in groups},
        overall=_differences(same) if len(groups) > 1 else {},
        common=len(same),
        changed=len(found) - len(same),
    )


def _pairs(ours: Mapping[Key, TaskEpisodes], theirs: Mapping[Key, TaskEpisodes]) -> Iterator[_Pair]:
    """What both have, also where their sets have other names."""
    by_id = {task_id: episodes for (_, task_id), episodes in theirs.items()}
    for key, first in ours.items():
        second = theirs.get(key) or by_id.get(key[1])
        if second is not None:
            yield _Pair(first=first, second=second)


def _question(task: TaskEpisodes) -> str:
    return task.records[0].task.question


def _differences(pairs: Sequence[_Pair]) -> dict[str, Difference]:
    """By what both measure: a question may be of another kind there."""
    measures = measures_of(
        [record for pair in pairs for record in pair.first.records + pair.second.records]
    )
    return {
        measure: paired_difference(
            [pair.first.mean(measure) for pair in pairs],
            [pair.second.mean(measure) for pair in pairs],
        )
        for measure in measures
    }
