"""The keys of a run's members: fresh for each start, a file each that only their user reads."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError

CHARACTERS = 40
"""Of a key in Z85."""


_Z85 = re.compile(r"[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]+")


def is_key(text: str) -> bool:
    """Whether this looks like a key."""
    return len(text) == CHARACTERS and _Z85.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyPair:
    """What a member proves itself with: the public key may be known, the secret one may not."""

    public: str
    secret: str

    def __repr__(self) -> str:
        """Without the secret."""
        return f"KeyPair(public={self.public!r})"


def write_key_pair(path: Path, pair: KeyPair) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{pair.public}\n{pair.secret}\n")


def read_key_pair(path: Path) -> KeyPair:
    """The keys in ``path``.

    Raises:
        InputError: there are none that this user can read.
    """
    try:
        public, secret = path.read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise InputError(
            f"the keys of a member of the run cannot be read from {path}: {error}; they "
            "exist while the run does, and only for the user who started it"
        ) from error
    if {len(public), len(secret)} != {CHARACTERS}:
        raise InputError(f"{path} must hold two keys of {CHARACTERS} characters each")
    return KeyPair(public=public, secret=secret)
