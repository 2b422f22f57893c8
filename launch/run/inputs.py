"""What the files that a run was begun with held: a resume with others is refused.

The configuration names paths only. Another task file under the same path would change the order of
tasks under the cursor of the saved state, and another model would not be the one that was trained.
Files that a run generates follow from its seeds.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from actors.agent.prompt import SHIPPED
from common.config import Config
from common.errors import InputError
from common.json_input import parse_json, read_text
from common.json_output import json_text
from common.whole_file import write_whole

_MODEL_TEXTS = ("config.json", "tokenizer.json")
_MODEL_WEIGHTS = "*.safetensors"


def input_digests(config: Config) -> dict[str, str]:
    """A digest of what each input of a run holds, by the key that names it.

    Files count with all of their bytes; a model folder with its configuration, its tokenizer, and
    the names and sizes of its weights.

    Raises:
        InputError: one cannot be read; names the key and the path.
    """
    return {key: _digest(key, Path(path)) for key, path in _inputs(config)}


def write_inputs(file: Path, config: Config) -> None:
    """Keep the digests for a later ``check_inputs``."""
    write_whole(file, json_text(input_digests(config), indent=1) + "\n")


def check_inputs(file: Path, config: Config) -> bool:
    """Compare the inputs with those that a run was begun with.

    Args:
        file: what ``write_inputs`` wrote when it began.
        config: the configuration that shall go on with it.

    Returns:
        Whether there was something to compare with; runs of earlier versions kept no digests.

    Raises:
        InputError: an input holds something else now, or the record is damaged.
    """
    if not file.is_file():
        return False
    then, now = _recorded(file), input_digests(config)
    paths = dict(_inputs(config))
    changed = [key for key in paths if then.get(key) != now[key]]
    if changed:
        listed = "; ".join(f"{key} ({paths[key]})" for key in changed)
        raise InputError(
            f"the run in {file.parent} was begun with other contents of: {listed}. Put the earlier "
            "contents back, or begin a new run with --name"
        )
    return True


def _recorded(file: Path) -> dict[str, str]:
    value = parse_json(read_text(file, what="record of inputs"), str(file))
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InputError(
            f"{file} must hold digests by key; remove it to go on without a comparison of inputs"
        )
    return value


def _inputs(config: Config) -> Iterator[tuple[str, str]]:
    """Keys and paths of what a run reads and does not make itself."""
    yield "model.path", config.model.path
    if config.agent.system_prompt not in ("", SHIPPED):
        yield "agent.system_prompt", config.agent.system_prompt
    if config.world.enabled:
        return
    yield from _named("tasks", train=config.tasks.train, train_corpus=config.tasks.train_corpus)
    for source in config.tasks.sources:
        yield from _named(f"tasks.sources.{source.name}", path=source.path)
    for suite in config.evaluation.suites:
        yield from _named(f"evaluation.suites.{suite.name}", tasks=suite.tasks, corpus=suite.corpus)


def _named(section: str, **paths: str) -> Iterator[tuple[str, str]]:
    return ((f"{section}.{key}", path) for key, path in paths.items() if path)


def _digest(key: str, path: Path) -> str:
    try:
        return digest_of_model(path) if key == "model.path" else digest_of_file(path)
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be read: {error.strerror}") from error


def digest_of_file(path: Path) -> str:
    """Of all of its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def digest_of_model(folder: Path) -> str:
    """Of its configuration and tokenizer, and of names and sizes of its weights."""
    texts = [f"{name} {digest_of_file(folder / name)}" for name in _MODEL_TEXTS]
    weights = [f"{file.name} {file.stat().st_size}" for file in sorted(folder.glob(_MODEL_WEIGHTS))]
    return hashlib.blake2b("\n".join(texts + weights).encode()).hexdigest()
