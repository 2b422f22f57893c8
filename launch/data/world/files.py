"""Writes a world as the task files and corpora that any run reads."""

import random
from collections.abc import Iterator
from pathlib import Path

from common.config import World as WorldConfig
from common.tasks import write_tasks
from common.wire.records import Task
from launch.data.world.encyclopedia import Encyclopedia
from launch.data.world.names import Pool
from launch.data.world.questions import FAMILIES, KINDS, Question, Wording, distinct, draw
from launch.data.world.traces import write_corpus

HELDOUT_PER_FAMILY = 1000
"""Held-out questions written per family."""

EXTRA_PER_FAMILY = 500
"""Questions per family in held-out wordings, and about unseen names."""


def write_world(folder: Path, config: WorldConfig, *, heldout_seed: int | None = None) -> None:
    """Write the task files and corpora of a run; a pure function of the arguments.

    Writes ``train.jsonl`` and ``train_corpus.jsonl`` of world ``config.seed``; ``heldout.jsonl``,
    ``heldout_wordings.jsonl`` and ``heldout_corpus.jsonl`` of the held-out world, whose names
     no training world uses; ``unseen.jsonl`` and ``unseen_corpus.jsonl``, whose names are made
    of words that occur in no training text.

    Args:
        folder: made if missing; files of these names are replaced.
        config: the seed and the number of training tasks.
        heldout_seed: of the held-out world, unless it is ``config.heldout_seed``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seed = config.heldout_seed if heldout_seed is None else heldout_seed
    train = Encyclopedia(config.seed, "train")
    heldout = Encyclopedia(seed, "heldout")
    unseen = Encyclopedia(seed, "unseen")
    for name, world in (("train", train), ("heldout", heldout), ("unseen", unseen)):
        write_corpus(world, folder / f"{name}_corpus.jsonl")
    training = training_tasks(train, config.train_tasks, training_wording(config))
    write_tasks(training, folder / "train.jsonl")
    write_tasks(evaluation_tasks(heldout, HELDOUT_PER_FAMILY), folder / "heldout.jsonl")
    wordings = evaluation_tasks(heldout, EXTRA_PER_FAMILY, "heldout")
    write_tasks(wordings, folder / "heldout_wordings.jsonl")
    write_tasks(evaluation_tasks(unseen, EXTRA_PER_FAMILY), folder / "unseen.jsonl")


def training_wording(config: WorldConfig) -> Wording:
    """In which wordings training asks."""
    return "more" if config.more_wordings else "train"


def training_tasks(world: Encyclopedia, count: int, wording: Wording = "train") -> Iterator[Task]:
    """Random questions of all kinds about a world."""
    rng = random.Random(f"tasks:{world.pool}:{world.seed}")
    for number in range(count):
        question = draw(world, list(KINDS), rng, wording)
        yield to_task(question, world, f"{world.pool}-{world.seed}-{number:05d}", wording)


def evaluation_tasks(
    world: Encyclopedia, per_family: int, wording: Wording = "train"
) -> Iterator[Task]:
    """Distinct questions, one family after the other, shuffled within each."""
    rng = random.Random(f"evaluation:{world.pool}:{world.seed}:{wording}")
    prefix = world.pool if wording == "train" else f"{world.pool}-wording"
    for family in FAMILIES:
        for number, question in enumerate(distinct(world, family, per_family, rng, wording)):
            task_id = f"{prefix}-{world.seed}-{family}-{number:04d}"
            yield to_task(question, world, task_id, wording)


def to_task(
    question: Question, world: Encyclopedia, task_id: str, wording: Wording = "train"
) -> Task:
    """The task of a question, labelled with what a report needs to know about it."""
    corpus: Pool = world.pool
    labels = {
        "kind": question.kind,
        "family": question.spec.family,
        "split": world.pool,
        "wording": wording,
        "subject": question.hops[0].entity,
        "bridge": question.bridge,
        "arithmetic": "no" if question.spec.subtract is None else "yes",
    }
    return Task(
        task_id=task_id,
        question=question.text,
        answers=(question.answer,),
        corpus=corpus,
        labels=labels,
    )
