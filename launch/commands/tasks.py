"""``lzero tasks``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from launch.outputs import written

if TYPE_CHECKING:
    from common.config import Config
    from common.wire.records import Task


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero tasks``."""
    tasks = commands.add_parser("tasks", help="convert, index and check your own tasks")
    actions = tasks.add_subparsers(required=True, metavar="ACTION")
    convert = actions.add_parser("convert", help="make task and corpus files from a data set")
    convert.add_argument("file", type=Path, help="questions: JSON, JSON lines, CSV, TSV, parquet")
    convert.add_argument("--out", type=Path, required=True, help="folder for the result")
    convert.add_argument("--corpus", type=Path, help="passages; those of the questions otherwise")
    convert.add_argument("--format", help="refuse the file unless it is of this shape")
    convert.add_argument("--source", help="name of the set, for ids and labels")
    convert.add_argument("--question", metavar="FIELD", help="of a shape that is not known")
    convert.add_argument("--answer", metavar="FIELD", help="of a shape that is not known")
    convert.add_argument("--kind", help="task type of all questions, e.g. number or judged")
    convert.set_defaults(run=_convert)
    mix = actions.add_parser("mix", help="make one training set of several task files")
    mix.add_argument("recipe", type=Path, metavar="RECIPE.toml", help="see docs/data.md")
    mix.add_argument("--out", type=Path, required=True, help="folder for the result")
    mix.set_defaults(run=_mix)
    index = actions.add_parser("index", help="make the search index of a corpus")
    index.add_argument("corpus", type=Path, help="JSON lines with title and text")
    index.add_argument("database", type=Path, help="index to write")
    index.set_defaults(run=_index)
    check = actions.add_parser("check", help="read a task file and report the first mistake")
    check.add_argument("file", type=Path)
    check.add_argument(
        "--config",
        type=Path,
        metavar="RUN.toml",
        help="configuration of the run: its tasks.kinds, tasks.file_folders and model",
    )
    check.add_argument(
        "--model", type=Path, metavar="FOLDER", help="warn of questions too long for this model"
    )
    check.add_argument(
        "--run-references",
        action="store_true",
        help="run the reference program of each task of kind code against its tests",
    )
    check.set_defaults(run=_check)


def _convert(arguments: argparse.Namespace) -> int:
    from launch.data.convert import Wanted, convert
    from launch.data.sources.tasks import said_of

    wanted = Wanted(
        shape=arguments.format,
        source=arguments.source,
        kind=arguments.kind,
        question=arguments.question,
        answer=arguments.answer,
    )
    with written(arguments.out):
        done = convert(arguments.file, out=arguments.out, corpus=arguments.corpus, wanted=wanted)
    sets = ", ".join(f"{source} {count}" for source, count in sorted(done.sources.items()))
    print(f"{arguments.file} {_said_of_shape(done.shape, arguments)}")
    pages = f"{done.pages} pages" if done.pages else "no pages (there is no corpus)"
    print(f"wrote {done.tasks} tasks ({sets}) and {pages} to {arguments.out}")
    if questions := said_of(done.left_out, golds=False):
        print(f"left out questions: {questions}")
    if golds := said_of(done.left_out, golds=True):
        print(f"left out gold answers of questions that have others: {golds}")
    if done.from_prompt:
        print(
            f"warning: {done.from_prompt} questions were found in prompts alone, with whatever "
            "instructions those hold; look at them, or name their field with --question"
        )
    return 0


def _said_of_shape(shape: str, arguments: argparse.Namespace) -> str:
    if not arguments.question:
        return f"is of the shape {shape}"
    return f"asks in field '{arguments.question}' and answers in field '{arguments.answer}'"


def _mix(arguments: argparse.Namespace) -> int:
    from launch.data.mix.mixing import mix

    with written(arguments.out):
        done = mix(arguments.recipe, arguments.out)
    files = ", ".join(f"{name} {count}" for name, count in done.written.items())
    print(f"wrote to {arguments.out}: {files}; manifest.json says what became of every task")
    for warning in done.warnings:
        print(f"warning: {warning}")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    from actors.tools.search.index import build_index

    pages = build_index(arguments.corpus, arguments.database)
    print(f"indexed {pages} pages into {arguments.database}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from common.config_file import load_config
    from common.task_rules import NO_EXTRAS, task_rules
    from launch.data import task_check
    from launch.run.preflight import locate_model

    config = load_config(arguments.config) if arguments.config else None
    tasks = task_check.read_checked(arguments.file, task_rules(config) if config else NO_EXTRAS)
    room = None
    if arguments.model:
        room = task_check.room_of_model(arguments.model)
    elif config and (model := locate_model(config.model.path)).is_dir():
        tokens = config.model.max_context - config.agent.max_action_tokens
        room = task_check.Room(model=model, tokens=tokens)
    warnings = list(task_check.warnings(tasks, room))
    print(f"{arguments.file}: {len(tasks)} tasks, no mistakes")
    for warning in warnings:
        print(f"warning: {warning}")
    return _run_references(tasks, config) if arguments.run_references else 0


def _run_references(tasks: "Sequence[Task]", config: "Config | None") -> int:
    """Run them and name those that fail; 1 if there are any."""
    import asyncio

    from common.config import Kernel
    from launch.data.references import failing_references

    kernel = config.kernel if config else Kernel()
    ran, failed = asyncio.run(failing_references(tasks, kernel))
    print(f"{ran} reference programs run in sandboxes, {len(failed)} do not pass their tests")
    for task_id in failed:
        print(f"fails: {task_id}")
    return int(bool(failed))
