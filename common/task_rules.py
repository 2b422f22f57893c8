"""What the tasks of a run may bring along: code of the user's own, and files of this machine.

Task files are data, often from elsewhere, and leases come over the wire: neither may choose what is
imported or read here. The configuration of a process says what may; both the reader of a task file
and the actor that runs a task look at it.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config import Config
from common.errors import InputError
from common.plugins import is_plugin
from common.wire.records import Task

_NO_FILES = (Path("/proc"), Path("/sys"), Path("/dev"))
"""What is here belongs to processes and devices, whatever a folder is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRules:
    """What tasks may name.

    Attributes:
        kinds: task types ``package.module:name`` that may be imported (``tasks.kinds``).
        folders: where files of tasks may lie, beside the folder of their task file
            (``tasks.file_folders``).
        max_file_bytes: a larger file has no room in the notebook's working folder.
    """

    kinds: frozenset[str] = frozenset()
    folders: tuple[Path, ...] = ()
    max_file_bytes: int = 64 << 20


NO_EXTRAS = TaskRules()
"""Built-in types, and files beside the task file."""


def task_rules(config: Config) -> TaskRules:
    """The rules of a run."""
    return TaskRules(
        kinds=frozenset(config.tasks.kinds),
        folders=tuple(map(Path, config.tasks.file_folders)),
        max_file_bytes=config.kernel.workspace_mib << 20,
    )


def task_folders(config: Config) -> tuple[Path, ...]:
    """The folders of the task files that a configuration names."""
    suites = (suite.tasks for suite in config.evaluation.suites)
    named = (*training_files(config).values(), *suites)
    return tuple(Path(file).absolute().parent for file in named)


def training_files(config: Config) -> dict[str, str]:
    """The files of training tasks by the name of their source; that of a single one is empty."""
    single = {"": config.tasks.train} if config.tasks.train else {}
    return single | {source.name: source.path for source in config.tasks.sources}


def check_kind(kind: str, rules: TaskRules) -> None:
    """Refuse a task type that may not be imported here.

    Raises:
        InputError: it is not named in ``tasks.kinds``.
    """
    if is_plugin(kind) and kind not in rules.kinds:
        named = ", ".join(sorted(rules.kinds)) or "none"
        raise InputError(
            f"field 'kind': {kind[:100]!r} imports code of yours, and tasks.kinds does not name it "
            f"(named: {named}); if you trust it, set tasks.kinds = [{kind[:100]!r}] in the "
            "run's configuration (lzero tasks check takes it with --config)"
        )


def check_file(path: Path, folders: Sequence[Path], rules: TaskRules) -> None:
    """Refuse a file that no task may bring into the notebook.

    Args:
        path: absolute.
        folders: where it may lie once every symbolic link is followed, beside ``rules.folders``.
        rules: of the run.

    Raises:
        InputError: it is missing, lies elsewhere, is no regular file, or is too large.
    """
    try:
        allowed = [folder.resolve() for folder in (*folders, *rules.folders)]
        real = path.resolve(strict=True)
        status = real.stat()
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist (a relative path starts from the folder of the task file)"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:  # no right, a loop of links, a NUL
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    if not any(real.is_relative_to(folder) for folder in allowed) or _is_system(real):
        raise InputError(
            f"{path} leads to {real}; files of tasks must lie in the folder of the task file, or "
            f"in one that tasks.file_folders names (allowed: {', '.join(map(str, allowed))})"
        )
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file")
    if status.st_size > rules.max_file_bytes:
        raise InputError(
            f"{path} has {status.st_size} bytes; the notebook's working folder holds "
            f"{rules.max_file_bytes} (kernel.workspace_mib)"
        )


def check_given_task(task: Task, folders: Sequence[Path], rules: TaskRules) -> None:
    """Look once more at a task that came from another process.

    Args:
        task: with absolute paths.
        folders: of the task files that this process knows of.
        rules: of this process's own configuration.

    Raises:
        InputError: it names a type or a file that it may not.
    """
    where = f"task {task.task_id!r}"
    try:
        check_kind(task.kind, rules)
        for file in task.files:
            if not Path(file).is_absolute():
                raise InputError(f"{file!r} is no absolute path")
            check_file(Path(file), folders, rules)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _is_system(real: Path) -> bool:
    return any(real.is_relative_to(folder) for folder in _NO_FILES)
