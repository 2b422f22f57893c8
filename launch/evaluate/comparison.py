"""Compares two results over the tasks that both asked: paired differences. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.episode_record import EvaluationRecord
from common.errors import InputError
from common.wire.records import Outcome
from launch.evaluate.estimates import Difference, paired_difference
from launch.evaluate.results import TaskEpisodes, by_task, measures_of

ALL = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Differences of a result to another one, by set (of the first) and measure.

    Attributes:
        other: folder of the second.
        sets: by name; ``all`` where there are several.
        common: tasks that both asked.
        changed: ids that both have, but with another question; left out.
    """

    other: str
    sets: dict[str, dict[str, Difference]]
    common: int
    changed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    first: TaskEpisodes
    second: TaskEpisodes


def compare_results(
    first: Sequence[EvaluationRecord], second: Sequence[EvaluationRecord], other: str
) -> Comparison:
    """The first result minus the second, over common task ids.

    Raises:
        InputError: they have no task in common.
    """
    ours, theirs = _by_id(first), _by_id(second)
    shared = [task_id for task_id in ours if task_id in theirs]
    same = [i for i in shared if _question(ours[i]) == _question(theirs[i])]
    if not same:
        raise InputError(f"--against {other}: no task that was asked there was asked here, too")
    groups: defaultdict[str, list[_Pair]] = defaultdict(list)
    for task_id in same:
        pair = _Pair(first=ours[task_id], second=theirs[task_id])
        groups[pair.first.records[0].question_set].append(pair)
    if len(groups) > 1:
        groups[ALL] = [pair for pairs in list(groups.values()) for pair in pairs]
    return Comparison(
        other=other,
        sets={name: _differences(pairs) for name, pairs in groups.items()},
        common=len(same),
        changed=len(shared) - len(same),
    )


def _by_id(records: Sequence[EvaluationRecord]) -> Mapping[str, TaskEpisodes]:
    kept = [record for record in records if record.outcome != Outcome.INFRASTRUCTURE]
    return {task_id: episodes for (_, task_id), episodes in by_task(kept).items()}


def _question(task: TaskEpisodes) -> str:
    return task.records[0].task.question


def _differences(pairs: Sequence[_Pair]) -> dict[str, Difference]:
    measures = measures_of([record for pair in pairs for record in pair.first.records])
    return {
        measure: paired_difference(
            [pair.first.mean(measure) for pair in pairs],
            [pair.second.mean(measure) for pair in pairs],
        )
        for measure in measures
    }
