"""Which tasks of a pool are taken, in which order, and which are set aside; pure."""

import hashlib
import math
import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from common.wire.records import Task
from launch.data.mix.recipe import Filters

T = TypeVar("T", bound=Hashable)
_OF_SCRIPTS = 0.9


def filter_fault(task: Task, filters: Filters) -> str:
    """Which filter leaves a task out; empty if none does."""
    length = len(task.question)
    if not filters.min_characters <= length <= filters.max_characters:
        return "length of question"
    if min(map(len, task.answers), default=0) > filters.max_answer_characters:
        return "length of answer"
    if filters.kinds and task.kind not in filters.kinds:
        return "kind"
    if filters.scripts and script_share(task.question, filters.scripts) < _OF_SCRIPTS:
        return "script"
    return ""


def script_share(text: str, scripts: Sequence[str]) -> float:
    """Share of the letters of a text that are of the named scripts; 1 without letters."""
    letters = [character for character in text if character.isalpha()]
    starts = tuple(script.upper() for script in scripts)
    own = sum(unicodedata.name(letter, "").startswith(starts) for letter in letters)
    return own / len(letters) if letters else 1.0


def shuffled(tasks: Iterable[Task], seed: int) -> list[Task]:
    """The tasks in an order of the seed, in which one more or less moves no other."""
    return sorted(
        tasks, key=lambda task: hashlib.sha256(f"{seed}/{task.task_id}".encode()).digest()
    )


def quotas(
    weights: Mapping[str, float], available: Mapping[str, int], total: int
) -> dict[str, int]:
    """How many tasks of each source are taken: by weight, and what one lacks the others give.

    Whole numbers by the largest remainder, of the first source among equals.
    """
    taken = dict.fromkeys(weights, 0)
    left = min(total, sum(available.values()))
    while left:
        room = {name: w for name, w in weights.items() if taken[name] < available[name]}
        whole = sum(room.values())
        exact = {name: left * weight / whole for name, weight in room.items()}
        full = [name for name in room if taken[name] + exact[name] >= available[name]]
        if full:
            for name in full:
                left -= available[name] - taken[name]
                taken[name] = available[name]
            continue
        for name, share in exact.items():
            taken[name] += math.floor(share)
        by_rest = sorted(exact, key=lambda name: math.floor(exact[name]) - exact[name])
        for name in by_rest[: left - sum(math.floor(share) for share in exact.values())]:
            taken[name] += 1
        left = 0
    return taken


def components(entities: Mapping[T, Sequence[str]]) -> list[list[T]]:
    """Keys in groups such that no two groups share an entity, in the order of their first key."""
    parent: dict[object, object] = {}

    def root(node: object) -> object:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for key, names in entities.items():
        for name in names:
            parent[root(("entity", name))] = root(("key", key))
    groups: dict[object, list[T]] = {}
    for key in entities:
        groups.setdefault(root(("key", key)), []).append(key)
    return list(groups.values())


def set_aside(groups: Sequence[Sequence[T]], count: int) -> set[T]:
    """Whole groups in their order, at most ``count`` keys; those that are too large are passed."""
    chosen: set[T] = set()
    for group in groups:
        if len(chosen) + len(group) <= count:
            chosen.update(group)
    return chosen
