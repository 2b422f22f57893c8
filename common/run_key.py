"""The secret of a run: whoever can read the run's folder may take part, nobody else."""

import os
import secrets
from pathlib import Path

from common.errors import InputError

_NAME = "run.key"
_BYTES = 32


def make_run_key(folder: Path) -> None:
    """Draw a new key for the run in ``folder``; only its owner can read the file."""
    path = folder / _NAME
    fresh = path.with_name(f"{_NAME}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_BYTES))
    fresh.replace(path)


def read_run_key(folder: Path) -> str:
    """The key of the run in ``folder``.

    Raises:
        InputError: there is none that this user can read.
    """
    try:
        key = (folder / _NAME).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the key of the run cannot be read from {folder / _NAME}: {error}; 'lzero train' "
            "makes it when it starts a run"
        ) from error
    if len(key) != 2 * _BYTES:
        raise InputError(f"{folder / _NAME} must hold {2 * _BYTES} characters, holds {len(key)}")
    return key
