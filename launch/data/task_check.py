"""Looks at task files as a run would, before there is one; what ``lzero tasks check`` says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.rewards.task_types import asked_question, check_task, unmatchable_answers
from actors.tokenizer import FileTokenizer
from common.chat import ChatRenderer
from common.errors import InputError
from common.model_config import CONFIG, longest_context, read_model_config
from common.task_rules import NO_EXTRAS, TaskRules
from common.tasks import read_tasks
from common.wire.records import Task

CORPORA = ("train", "heldout")
"""What ``Task.corpus`` may say."""

_NAMED = 5
"""Tasks that a warning names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """How long a question may be.

    Attributes:
        model: folder of the model, with its tokenizer.
        tokens: of its context, less those that an action needs.
    """

    model: Path
    tokens: int


def read_checked(file: Path, rules: TaskRules = NO_EXTRAS) -> list[Task]:
    """The tasks of a file, each checked by its type and for its corpus.

    Raises:
        InputError: as ``read_tasks``; names file, line and field.
    """
    return read_tasks(file, rules=rules, check=_check)


def warnings(tasks: Sequence[Task], room: Room | None) -> Iterator[str]:
    """What is no mistake, but hardly meant, one line each."""
    odd = {task.task_id: found[0] for task in tasks if (found := unmatchable_answers(task))}
    if odd:
        yield (
            f"{len(odd)} tasks have a gold answer that nothing can match beside others: "
            + _listed([f"{task_id!r} ({answer[:40]!r})" for task_id, answer in odd.items()])
        )
    if room is not None and (long := _too_long(tasks, room)):
        yield (
            f"{len(long)} questions do not fit into the {room.tokens} tokens that the context of "
            f"{room.model} leaves them, and end as out_of_context: " + _listed(long)
        )


def room_of_model(folder: Path) -> Room:
    """All of the context that a model was made for.

    Raises:
        InputError: its ``config.json`` does not say, or is of no model that can be trained.
    """
    file = folder / CONFIG
    longest = longest_context(read_model_config(folder), file)
    if longest is None:
        raise InputError(f"{file} does not say how long a context is (max_position_embeddings)")
    return Room(model=folder, tokens=longest)


def _check(task: Task) -> None:
    check_task(task)
    if task.corpus not in CORPORA:
        raise InputError(
            f"field 'corpus': task {task.task_id!r} names the corpus {task.corpus!r}; "
            f"expected one of {', '.join(CORPORA)}"
        )


def _too_long(tasks: Sequence[Task], room: Room) -> list[str]:
    tokenizer = FileTokenizer(room.model)
    renderer = ChatRenderer(tokenizer)
    lengths = ((task, len(renderer.prompt(asked_question(task)))) for task in tasks)
    return [f"{t.task_id!r} ({length} tokens)" for t, length in lengths if length > room.tokens]


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more
