"""Makes a training set by a recipe, and a manifest of what became of every task."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from common.errors import InputError
from common.json_input import numbered_lines, parse_json
from common.tasks import read_tasks, write_tasks
from common.wire.records import Task
from launch.data.mix.choice import components, filter_fault, quotas, set_aside, shuffled
from launch.data.mix.manifest import MANIFEST, Chosen, Made, Pool, write_manifest
from launch.data.mix.overlap import EvaluationIndex, entities, question_key
from launch.data.mix.recipe import UNKNOWN_LICENCE, Difficulty, MixSource, Recipe, read_recipe
from launch.data.outputs import check_outputs
from launch.data.sources.fields import titles_of_label
from launch.data.sources.passages import read_passages, write_passages

_CORPUS = "corpus.jsonl"
_OUTPUTS = ("train.jsonl", "heldout.jsonl", _CORPUS)
_UNMEASURED = "without a pass rate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """What was made: tasks by file, and what a person must know."""

    written: dict[str, int]
    warnings: tuple[str, ...]


def mix(file: Path, out: Path) -> Mixed:
    """Write ``train.jsonl``, ``heldout.jsonl``, ``corpus.jsonl`` and ``manifest.json`` to ``out``.

    The same recipe and files give the same bytes; another order of their lines, the same tasks.

    Raises:
        ConfigError: the recipe is malformed.
        InputError: a file is missing or broken, two tasks have one id, nothing is left, or a
            file of the user's would be written over.
    """
    recipe = read_recipe(file)
    inputs = [file, *map(Path, recipe.inputs)]
    check_outputs(out, (*_OUTPUTS, MANIFEST), inputs=inputs, made_by=MANIFEST)
    evaluation = {path: read_tasks(Path(path)) for path in recipe.mix.evaluation}
    index = EvaluationIndex(evaluation.items(), ngram=recipe.mix.ngram)
    rates = pass_rates(recipe.difficulty)
    seen: set[tuple[str, ...]] = set()
    pools = [_pool(source, recipe, index, rates, seen) for source in recipe.sources]
    _check_ids(pools)
    train, heldout = _split(_sampled(pools, recipe), recipe)
    if not train:
        raise InputError(f"{file}: no task is left for training: {_reasons(pools)}")
    out.mkdir(parents=True, exist_ok=True)
    written = _write(out, train, heldout, recipe)
    made = Made(file=file, recipe=recipe, pools=pools, train=train, heldout=heldout)
    counts = {path: len(tasks) for path, tasks in evaluation.items()}
    write_manifest(out, made, evaluation=counts, written=written)
    return Mixed(written=written, warnings=tuple(_warnings(recipe, pools, train, heldout)))


def pass_rates(difficulty: Difficulty) -> dict[str, float] | None:
    """Share of attempts that were right, by task id; None where difficulty is not asked for.

    Raises:
        InputError: a line has no task id, or no share in [0, 1].
    """
    if not difficulty.results:
        return None
    path = Path(difficulty.results)
    attempts: dict[str, list[float]] = {}
    for number, line in numbered_lines(path, what="results"):
        where = f"{path}, line {number}"
        task_id, value = _result(parse_json(line, where), where)
        attempts.setdefault(task_id, []).append(value)
    return {task_id: fmean(values) for task_id, values in attempts.items()}


def _result(row: Any, where: str) -> tuple[str, float]:
    fields: Mapping[str, Any] = row if isinstance(row, dict) else {}
    scores = fields.get("scores")
    inner = scores.get("exact_match") if isinstance(scores, dict) else None
    value = fields.get("pass_rate", fields.get("exact_match", inner))
    task_id = fields.get("task_id")
    if not isinstance(task_id, str) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InputError(
            f"{where}: expected 'task_id' and a share 'pass_rate', 'exact_match' or "
            f"'scores.exact_match' in [0, 1], got {json.dumps(row)[:80]}"
        )
    return task_id, float(value)


def _pool(
    source: MixSource,
    recipe: Recipe,
    index: EvaluationIndex,
    rates: Mapping[str, float] | None,
    seen: set[tuple[str, ...]],
) -> Pool:
    """The tasks of a source that pass every stage; their questions are added to ``seen``."""
    tasks, kept, left_out = read_tasks(Path(source.path)), [], Counter[str]()
    for task in sorted(tasks, key=attrgetter("task_id")):
        reason = filter_fault(task, recipe.filters)
        key = question_key(task.question)
        if reason:
            left_out[f"filter: {reason}"] += 1
        elif key in seen:
            left_out["duplicate"] += 1
        elif found := index.overlap(task):
            left_out[f"evaluation: {found[0]}: {found[1]}"] += 1
        elif reason := _difficulty_fault(task, recipe.difficulty, rates):
            left_out[f"difficulty: {reason}"] += 1
        else:
            seen.add(key)
            kept.append(task)
    return Pool(source, kept, len(tasks), left_out)


def _difficulty_fault(task: Task, bounds: Difficulty, rates: Mapping[str, float] | None) -> str:
    if rates is None:
        return ""
    rate = rates.get(task.task_id)
    if rate is None:
        return _UNMEASURED
    return "too hard" if rate < bounds.min else "too easy" if rate > bounds.max else ""


def _check_ids(pools: Iterable[Pool]) -> None:
    homes: dict[str, str] = {}
    for pool in pools:
        for task in pool.tasks:
            home = homes.setdefault(task.task_id, pool.source.path)
            if home != pool.source.path:
                raise InputError(
                    f"task_id {task.task_id!r} is in {home} and in {pool.source.path}, of two "
                    "questions; convert one of them with another --source"
                )


def _sampled(pools: Iterable[Pool], recipe: Recipe) -> dict[str, tuple[str, Task]]:
    """The tasks that are taken, in their order, by id, each with the name of its source."""
    by_name = {pool.source.name: pool for pool in pools}
    taken = quotas(
        {name: pool.source.weight for name, pool in by_name.items()},
        {name: len(pool.tasks) for name, pool in by_name.items()},
        recipe.mix.tasks + recipe.mix.heldout,
    )
    seed = recipe.mix.seed
    chosen = [
        (name, task)
        for name, pool in by_name.items()
        for task in shuffled(pool.tasks, seed)[: taken[name]]
    ]
    names = {task.task_id: name for name, task in chosen}
    ordered = shuffled((task for _, task in chosen), seed)
    return {task.task_id: (names[task.task_id], task) for task in ordered}


def _split(sampled: Mapping[str, tuple[str, Task]], recipe: Recipe) -> tuple[Chosen, Chosen]:
    """Training tasks and those set aside, which share no entity with them."""
    about = {
        task_id: list(entities(task, titles_of_label(task)))
        for task_id, (_, task) in sampled.items()
    }
    aside = set_aside(components(about), recipe.mix.heldout) if recipe.mix.heldout else set()
    train = [found for task_id, found in sampled.items() if task_id not in aside]
    return train[: recipe.mix.tasks], [sampled[task_id] for task_id in sampled if task_id in aside]


def _write(out: Path, train: Chosen, heldout: Chosen, recipe: Recipe) -> dict[str, int]:
    """Tasks and passages by file; a file of an earlier mix does not stay beside them."""
    written = {}
    for name, chosen in zip(_OUTPUTS, (train, heldout), strict=False):
        write_tasks((task for _, task in chosen), out / name)
        written[name] = len(chosen)
    corpora = [source.corpus for source in recipe.sources if source.corpus]
    passages = (page for corpus in corpora for page in read_passages(Path(corpus)))
    written[_CORPUS] = write_passages(dict.fromkeys(passages), out / _CORPUS)
    for name in [name for name, count in written.items() if not count]:
        (out / name).unlink(missing_ok=True)
        del written[name]
    return written


def _reasons(pools: Iterable[Pool]) -> str:
    return "; ".join(
        f"{pool.source.name}: {pool.read} read"
        + "".join(f", {count} {reason}" for reason, count in pool.left_out.most_common())
        for pool in pools
    )


def _warnings(
    recipe: Recipe, pools: Iterable[Pool], train: Chosen, heldout: Chosen
) -> Iterable[str]:
    for have, wanted, what in (
        (len(train), recipe.mix.tasks, "training tasks"),
        (len(heldout), recipe.mix.heldout, "held-out tasks that share no entity with others"),
    ):
        if have < wanted:
            yield f"there are {have} {what}, not {wanted}: {_reasons(pools)}"
    for pool in pools:
        if pool.source.known_licence == UNKNOWN_LICENCE:
            yield f"source '{pool.source.name}': its licence is not known; set licence"
