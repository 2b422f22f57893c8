"""Which task files an evaluation asks: those on the command line, or those of a suite."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.asking import QuestionSet
from common.errors import InputError
from launch.evaluate.published import published

DATA_VARIABLE = "LZERO_DATA"
TASKS = "tasks.jsonl"
"""What ``lzero tasks convert`` calls the task file in its folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenSets:
    """What is asked, and the sets of the suite that are not there."""

    sets: tuple[QuestionSet, ...]
    missing: tuple[str, ...] = ()


def sets_of_files(paths: Sequence[Path]) -> ChosenSets:
    """One set per task file, called like the file, or like its folder if it is ``tasks.jsonl``.

    Raises:
        InputError: two have one name.
    """
    named = [(path.parent.resolve().name if path.name == TASKS else path.stem) for path in paths]
    for name, count in Counter(named).items():
        if count > 1:
            raise InputError(
                f"--tasks: {count} files would both be called {name!r} in the results: "
                f"{', '.join(str(p) for p, n in zip(paths, named, strict=True) if n == name)}; "
                "rename one"
            )
    return ChosenSets(
        sets=tuple(
            QuestionSet(name=name, tasks=str(path.expanduser().absolute()))
            for name, path in zip(named, paths, strict=True)
        )
    )


def sets_of_suite(suite: str, data: Path | None) -> ChosenSets:
    """The sets of a suite that the folder ``data`` has as NAME/tasks.jsonl.

    Raises:
        InputError: no folder is named, or it has none of them.
    """
    folder = data or (Path(given) if (given := os.environ.get(DATA_VARIABLE, "")) else None)
    names = published().suites[suite]
    if folder is None:
        raise InputError(
            f"--suite {suite} needs the sets in a folder of yours: name it with --data FOLDER or "
            f"{DATA_VARIABLE}; it holds NAME/{TASKS} as lzero tasks convert writes them, for\n"
            + describe_homes(names)
        )
    folder = folder.expanduser().absolute()
    found = [name for name in names if (folder / name / TASKS).is_file()]
    missing = tuple(name for name in names if name not in found)
    if not found:
        raise InputError(
            f"{folder} has none of the sets of --suite {suite}; it should hold NAME/{TASKS} as "
            f"lzero tasks convert writes them, for\n" + describe_homes(names)
        )
    sets = (QuestionSet(name=name, tasks=str(folder / name / TASKS)) for name in found)
    return ChosenSets(sets=tuple(sets), missing=missing)


def describe_homes(names: Sequence[str]) -> str:
    """Where sets are published, one line each."""
    return "\n".join(f"  {name:<10} {published().homes[name]}" for name in names)
