"""What an evaluation is asked to do and what it answers; shared by the actors and the launcher."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.json_output import json_text
from common.whole_file import write_whole
from common.wire.records import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """One set of held-out questions, asked under one condition.

    ``per_family`` questions are taken of each value of the task label ``family`` (all tasks
    without that label count as one family), in file order. 0 takes all.
    """

    name: str
    tasks: str
    corpus: str
    temperature: float = 1.0
    per_family: int = 0
    search_disabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilyScore:
    """Mean scores over the questions of one family; shares in [0, 1]."""

    n: int
    exact_match: float
    contains: float
    f1: float
    submitted: float
    mean_steps: float
    dropped: int = 0
    """Episodes lost to infrastructure, not counted in ``n``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteScore:
    """The result of one suite.

    ``weight_version`` is the one version all episodes ran under.
    """

    suite: Suite
    weight_version: int
    seconds: float
    families: dict[str, FamilyScore]


def family_of(task: Task) -> str:
    """The family that scores are grouped by; ``all`` for tasks without that label."""
    return task.labels.get("family", "all")


def first_of_each_family(tasks: Sequence[Task], per_family: int) -> list[Task]:
    """The first ``per_family`` tasks of each family, in file order; all of them for 0."""
    taken: Counter[str] = Counter()
    chosen: list[Task] = []
    for task in tasks:
        family = family_of(task)
        if not per_family or taken[family] < per_family:
            taken[family] += 1
            chosen.append(task)
    return chosen


def read_suites(path: Path) -> tuple[Suite, ...]:
    """The suites of a plan file, a JSON list."""
    return tuple(Suite(**entry) for entry in json.loads(path.read_text()))


def write_suites(suites: tuple[Suite, ...], path: Path) -> None:
    """Write a plan file."""
    write_whole(path, json_text([dataclasses.asdict(suite) for suite in suites], indent=1))


def read_score(path: Path) -> SuiteScore:
    """A score as ``write_score`` left it."""
    data = json.loads(path.read_text())
    return SuiteScore(
        suite=Suite(**data["suite"]),
        weight_version=data["weight_version"],
        seconds=data["seconds"],
        families={name: FamilyScore(**score) for name, score in data["families"].items()},
    )


def write_score(score: SuiteScore, path: Path) -> None:
    """Write a score as JSON."""
    write_whole(path, json_text(dataclasses.asdict(score), indent=1))
