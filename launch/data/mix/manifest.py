"""The manifest of a mix: counts of every stage, digests of what was read and written, licences."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.json_output import json_text
from common.whole_file import write_whole
from common.wire.records import Task
from launch.data.mix.recipe import MixSource, Recipe

MANIFEST, MANIFEST_FORMAT = "manifest.json", 1

Chosen = list[tuple[str, Task]]
"""Tasks, each with the name of its source."""


@dataclass(frozen=True, slots=True)
class Pool:
    """What is left of a source, and how many of its tasks were left out by reason."""

    source: MixSource
    tasks: list[Task]
    read: int
    left_out: Counter[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What became of the tasks of a recipe."""

    file: Path
    recipe: Recipe
    pools: list[Pool]
    train: Chosen
    heldout: Chosen


def write_manifest(
    out: Path, made: Made, *, evaluation: Mapping[str, int], written: Mapping[str, int]
) -> None:
    """Write ``manifest.json``.

    Args:
        out: folder of the mix, with all its files.
        made: what became of the tasks.
        evaluation: tasks of each evaluation set, by path.
        written: records of each file in ``out``, by name.
    """
    recipe = made.recipe
    others = (recipe.difficulty.results, *(source.corpus for source in recipe.sources))
    manifest = {
        "format": MANIFEST_FORMAT,
        "seed": recipe.mix.seed,
        "recipe": {"path": str(made.file), "sha256": _sha256(made.file)},
        "sources": _sources(made),
        "evaluation": [
            {"path": path, "sha256": _sha256(Path(path)), "tasks": count}
            for path, count in evaluation.items()
        ],
        "other_inputs": {path: _sha256(Path(path)) for path in others if path},
        "outputs": {
            name: {"records": count, "sha256": _sha256(out / name)}
            for name, count in written.items()
        },
    }
    write_whole(out / MANIFEST, json_text(manifest, indent=1, readable=True) + "\n")


def _sources(made: Made) -> list[dict[str, Any]]:
    train, heldout = (Counter(name for name, _ in some) for some in (made.train, made.heldout))
    return [
        {
            "name": pool.source.name,
            "path": pool.source.path,
            "sha256": _sha256(Path(pool.source.path)),
            "licence": pool.source.known_licence,
            "weight": pool.source.weight,
            "read": pool.read,
            "left_out": dict(sorted(pool.left_out.items())),
            "usable": len(pool.tasks),
            "train": train[pool.source.name],
            "heldout": heldout[pool.source.name],
        }
        for pool in made.pools
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
