"""What a path of a model means: a run, a checkpoint of one, or a model folder."""

from pathlib import Path

from common.config import Config
from common.config_file import load_earlier_config
from common.errors import InputError
from launch.run.folder import RunFolder


def locate_checkpoint(path: Path) -> tuple[Path, Config | None]:
    """The Hugging Face folder behind ``path``, and the configuration of its run if there is one.

    Raises:
        InputError: ``path`` is none of them.
    """
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        missing = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"checkpoint {path} {missing}")
    run = RunFolder(folder)
    if run.state_file.is_file():
        checkpoint = run.last_checkpoint()
        if checkpoint is None:
            raise InputError(f"run {path} has no checkpoint yet")
        return checkpoint / "hf", load_earlier_config(run.config)
    if (folder / "hf").is_dir():
        run = RunFolder(folder.parents[1])
        return folder / "hf", load_earlier_config(run.config) if run.config.is_file() else None
    if (folder / "config.json").is_file():
        return folder, None
    raise InputError(
        f"{path} is neither a run (state.json), nor a checkpoint (hf/), nor a Hugging Face model "
        "folder (config.json)"
    )
