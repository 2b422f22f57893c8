"""Checkpoint folders: their names, their manifest with checksums, and which one is whole.

A checkpoint is written as ``step-000040.partial``; the manifest, which names every file with its
size and checksum, comes last, and then the folder gets its name in one step. So a folder named
``step-000040`` was whole when it was written, and the manifest tells whether it still is. Nothing
here needs torch.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.whole_file import sync_folder
from learner.checkpoints.digests import Digest, digest_of, write_file
from learner.checkpoints.retention import Keep, kept

FORMAT_VERSION = 2
"""Raised whenever an older program could not read a newer checkpoint or the reverse."""

MANIFEST = "manifest.json"
DESCRIPTION = "checkpoint.json"
LEDGER = "ledger.bin"
STATE = "state"
MODEL = "hf"
PARTIAL = ".partial"
"""Suffix of a folder that is being written, or was when the writer was ended."""
REPLACED = ".replaced"
DAMAGED = ".damaged"
"""Suffix of a folder that was set aside because its files are not as they were written."""

_NAME = re.compile(r"step-(\d{6,})")


class DamagedCheckpointError(InputError):
    """A checkpoint whose files are not as they were written; an earlier one may be usable."""


# ---- names -----------------------------------------------------------------------------------


def checkpoint_name(step: int) -> str:
    """Folder of the checkpoint after ``step`` optimizer steps."""
    return f"step-{step:06d}"


def step_of(checkpoint: Path) -> int:
    """The step in a folder's name."""
    match = _NAME.match(checkpoint.name)
    if match is None:
        raise ValueError(f"'{checkpoint.name}' is not the name of a checkpoint")
    return int(match[1])


def finished_checkpoints(folder: Path) -> list[Path]:
    """Folders that were finished, the newest first; nothing of them is read."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)


def oldest_step(folder: Path) -> int | None:
    """The step of the oldest finished checkpoint; None without one."""
    found = finished_checkpoints(folder)
    return step_of(found[-1]) if found else None


def remove_leftovers(folder: Path) -> None:
    """Remove folders of saves that were cut off; only while no save is under way."""
    for suffix in (PARTIAL, REPLACED):
        for path in folder.glob(f"step-*{suffix}"):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that it is neither loaded nor counted again."""
    aside = checkpoint.with_name(checkpoint.name + DAMAGED)
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)
    return aside


# ---- writing ---------------------------------------------------------------------------------


def publish(partial: Path, final: Path, digests: Mapping[str, Digest], *, keep: Keep) -> None:
    """Write the manifest, give the folder its name, and remove checkpoints that need not stay.

    Args:
        partial: everything in it is written and synchronised, except folders.
        final: its name from now on; a checkpoint there is replaced.
        digests: of every file, by path relative to ``partial``.
        keep: which checkpoints stay.
    """
    files = {
        name: {"bytes": digest.num_bytes, "blake2b": digest.blake2b}
        for name, digest in sorted(digests.items())
    }
    text = json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=1) + "\n"
    write_file(partial / MANIFEST, text.encode())
    for path in (partial / STATE, partial / MODEL, partial):
        sync_folder(path)
    replaced = final.with_name(final.name + REPLACED)
    if final.exists():
        final.rename(replaced)
    partial.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)
    there = {step_of(path): path for path in finished_checkpoints(final.parent)}
    for step in there.keys() - kept(there, keep):
        shutil.rmtree(there[step])


# ---- reading ---------------------------------------------------------------------------------


def read_description(checkpoint: Path) -> dict[str, Any]:
    """Read ``checkpoint.json`` and check its format version.

    Raises:
        InputError: it is no checkpoint, or of another format version.
        DamagedCheckpointError: the file is not JSON.
    """
    path = checkpoint / DESCRIPTION
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        if (checkpoint / MANIFEST).is_file():
            raise DamagedCheckpointError(
                f"checkpoint '{checkpoint}' is damaged: its {DESCRIPTION} is missing"
            ) from error
        raise InputError(f"'{checkpoint}' is no checkpoint: it has no {DESCRIPTION}") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"'{path}' is not JSON: {error}") from error
    found = description.get("format_version") if isinstance(description, dict) else None
    if found != FORMAT_VERSION:
        raise InputError(
            f"checkpoint '{checkpoint}' has format version {found}, but this program reads "
            f"version {FORMAT_VERSION}; continue the run with the program that wrote it, or "
            f"start a new one from '{checkpoint / MODEL}'"
        )
    return dict(description)


def read_manifest(checkpoint: Path) -> dict[str, Digest]:
    """Digests of all files by path relative to the checkpoint.

    Raises:
        DamagedCheckpointError: the manifest is missing or unreadable.
    """
    path = checkpoint / MANIFEST
    try:
        files = json.loads(path.read_bytes())["files"]
        if outside := [name for name in files if ".." in Path(name).parts or name.startswith("/")]:
            raise ValueError(f"it names {outside[0]!r}, which is not in the folder")
        return {name: Digest(int(row["bytes"]), str(row["blake2b"])) for name, row in files.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(
            f"checkpoint '{checkpoint}' is damaged: its {MANIFEST} cannot be read: {error!r}"
        ) from error


def find_damage(checkpoint: Path, *, share: int = 0, shares: int = 1) -> list[str]:
    """What is wrong with the files of a checkpoint, one line per file; empty if nothing is.

    Sizes are looked at for all files. Checksums of the largest files are spread evenly, so that
    several processes can check a part each; this is where the time goes.

    Args:
        checkpoint: a finished one.
        share: which part's checksums are computed.
        shares: number of parts.

    Raises:
        DamagedCheckpointError: there is no readable manifest.
    """
    manifest = read_manifest(checkpoint)
    faults = [
        fault
        for name, digest in manifest.items()
        if (fault := _size_fault(checkpoint, name, digest))
    ]
    if not faults:
        by_size = sorted(manifest, key=lambda name: (-manifest[name].num_bytes, name))
        for name in by_size[share::shares]:
            faults += _content_fault(checkpoint, name, manifest[name])
    return faults


def _size_fault(checkpoint: Path, name: str, digest: Digest) -> str:
    try:
        size = (checkpoint / name).stat().st_size
    except OSError as error:
        return f"{name} is missing" if isinstance(error, FileNotFoundError) else f"{name}: {error}"
    if size != digest.num_bytes:
        return f"{name} has {size} bytes, {digest.num_bytes} were written"
    return ""


def _content_fault(checkpoint: Path, name: str, digest: Digest) -> Iterator[str]:
    try:
        found = digest_of(checkpoint / name)
    except OSError as error:
        yield f"{name} cannot be read: {error}"
        return
    if found != digest:
        yield (f"{name} has checksum {found.blake2b[:16]}..., {digest.blake2b[:16]}... was written")
