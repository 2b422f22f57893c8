"""Whether both sides ask a question in the same tokens."""

from collections.abc import Sequence
from pathlib import Path

from actors.tokenizer import FileTokenizer
from common.chat import ChatRenderer, prompt_text
from common.errors import InputError
from common.wire.records import Task


def written_prompt(task: Task) -> str:
    """The text that TRL is given: the context of direct mode, up to where an answer begins."""
    return prompt_text(task.question)


def our_prompts(tasks: Sequence[Task], model: Path) -> list[list[int]]:
    """Token ids of each prompt, as an actor makes them.

    Raises:
        InputError: the model folder has no usable tokenizer.
    """
    renderer = ChatRenderer(FileTokenizer(model))
    return [renderer.prompt(task.question) for task in tasks]


def check_same_prompts(
    tasks: Sequence[Task], ours: Sequence[Sequence[int]], theirs: Sequence[Sequence[int]]
) -> None:
    """Refuse to compare trainers that are asked differently.

    Raises:
        InputError: names the first task whose token ids differ, and where.
    """
    for task, own, other in zip(tasks, ours, theirs, strict=True):
        if list(own) == list(other):
            continue
        pairs = zip(own, other, strict=False)
        place = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(own), len(other)))
        raise InputError(
            f"task {task.task_id!r} has other token ids in L-Zero than in TRL, from token "
            f"{place + 1} on: {list(own[place : place + 5])} and {list(other[place : place + 5])}"
            "; no comparison can be made with this model's tokenizer"
        )
