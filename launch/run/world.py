"""The generated world of a run: making it, and a configuration that uses it."""

import dataclasses
from pathlib import Path

from actors.tools.search.index import build_index
from common.config import Config, World
from launch.data.world import write_world
from launch.plan.evaluation import with_world_suites


def use_world(config: Config, world: Path) -> Config:
    """The configuration with the task files, indexes and suites of a generated world."""
    tasks = dataclasses.replace(
        config.tasks,
        train=str(world / "train.jsonl"),
        train_corpus=str(world / "train_corpus.sqlite"),
    )
    evaluation = with_world_suites(config.evaluation, world)
    return dataclasses.replace(config, tasks=tasks, evaluation=evaluation)


def make_world(folder: Path, world: World, *, heldout_seed: int | None = None) -> None:
    """Write task files and corpora, of another held-out world if one is given, and index them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_world(folder, world, heldout_seed=heldout_seed)
    for corpus in sorted(folder.glob("*_corpus.jsonl")):
        build_index(corpus, corpus.with_suffix(".sqlite"))
