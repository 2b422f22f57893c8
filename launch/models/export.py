"""``lzero export``: writes a plain Hugging Face folder from a checkpoint, on one process.

It reads the sharded state, whatever the number of ranks that wrote it, and needs neither torch nor
memory for the model.
"""

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError, MachineError
from common.model_config import CONFIG
from launch.run.folder import RunFolder
from learner.checkpoints.export import export_state
from learner.checkpoints.files import (
    MODEL,
    STATE,
    DamagedCheckpointError,
    find_damage,
    finished_checkpoints,
    read_description,
)
from learner.checkpoints.number_formats import FORMAT_OF_DTYPE

log = logging.getLogger(__name__)

GB = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """The command line of ``lzero export``.

    Attributes:
        source: a run, its folder of checkpoints, or one checkpoint.
        out: folder to write; must not exist, or be empty.
        dtype: of the weights: float32, bfloat16 or float16.
        max_file_gb: weights files are not larger than this many GB, unless one tensor is.
    """

    source: Path
    out: Path
    dtype: str = "float32"
    max_file_gb: float = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    checkpoint: Path
    step: int
    files: int
    num_bytes: int


def export(request: ExportRequest) -> Exported:
    """Find the checkpoint, look at its checksums, and write the folder.

    Raises:
        InputError: there is no usable checkpoint, or something is in the way of the folder.
        MachineError: the folder cannot be written.
    """
    number_format = _format(request)
    _check_destination(request.out)
    checkpoint = find_checkpoint(request.source)
    description = read_description(checkpoint)
    out = request.out.expanduser().resolve()
    partial = out.with_name(out.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        written = export_state(
            checkpoint / STATE,
            checkpoint / MODEL,
            partial,
            number_format,
            adapters=description["adapters"],
            max_file_bytes=int(request.max_file_gb * GB),
        )
        if out.exists():
            out.rmdir()
        os.rename(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise MachineError(f"'{request.out}' cannot be written: {error}") from error
    return Exported(
        checkpoint=checkpoint,
        step=int(description["step"]),
        files=len(written),
        num_bytes=sum(digest.num_bytes for digest in written.values()),
    )


def find_checkpoint(source: Path) -> Path:
    """The checkpoint that ``source`` is or holds; of several, the newest that is whole.

    Raises:
        InputError: there is none; names what is wrong with those that are there.
    """
    folder = source.expanduser().resolve()
    if not folder.is_dir():
        raise InputError(f"'{source}' is no folder; expected a run or a checkpoint")
    if (folder / STATE).is_dir() or (folder / "checkpoint.json").is_file():
        read_description(folder)
        if damage := find_damage(folder):
            raise DamagedCheckpointError(f"checkpoint '{folder}' is damaged: {'; '.join(damage)}")
        return folder
    found = finished_checkpoints(folder / "checkpoints") or finished_checkpoints(folder)
    if found:
        return _newest_whole(source, found)
    if (folder / CONFIG).is_file() and not RunFolder(folder).state_file.is_file():
        raise InputError(f"'{source}' is a Hugging Face folder already; use it as it is")
    raise InputError(
        f"'{source}' holds no finished checkpoint; expected a run, or a folder like "
        "checkpoints/step-000040 in it"
    )


def _newest_whole(source: Path, found: list[Path]) -> Path:
    damages = []
    for checkpoint in found:
        try:
            read_description(checkpoint)
            damage = find_damage(checkpoint)
        except DamagedCheckpointError as error:
            damage = [str(error)]
        if not damage:
            return checkpoint
        damages.append(f"{checkpoint.name}: {'; '.join(damage)}")
        log.warning("checkpoint '%s' is damaged: %s", checkpoint, "; ".join(damage))
    raise InputError(
        f"none of the {len(found)} checkpoints of '{source}' is whole: {'; '.join(damages)}"
    )


def _format(request: ExportRequest) -> str:
    if request.max_file_gb <= 0:
        raise InputError(f"--max-file-gb must be above 0, got {request.max_file_gb}")
    if request.dtype not in FORMAT_OF_DTYPE:
        raise InputError(
            f"--dtype must be one of {', '.join(FORMAT_OF_DTYPE)}, got {request.dtype!r}"
        )
    return FORMAT_OF_DTYPE[request.dtype]


def _check_destination(out: Path) -> None:
    folder = out.expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"'{out}' exists and is not empty; name another folder with --out")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"'{folder.absolute().parent}' is no folder, so '{out}' cannot be made")
