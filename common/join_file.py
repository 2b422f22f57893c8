"""``RUN/join.json``: one address and one secret, with which somebody takes part in a run.

It is its owner's alone (0600): whoever can read it may sample for the run and supply trajectories.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from common.config_file import from_tables, read_tables
from common.errors import InputError
from common.json_output import json_text
from common.places import Address
from common.wire.keys import CHARACTERS, KeyPair, is_key

JOIN_FILE = "join.json"
"""In the folder of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinFile:
    """How a run is joined.

    Attributes:
        coordinator: where it listens, and by which key it is known.
        public, secret: the credential (CURVE, 40 characters of Z85 each).
    """

    coordinator: Address
    public: str
    secret: str

    def __post_init__(self) -> None:
        """Reject what ZeroMQ would not take for keys."""
        parts = {
            "coordinator.key": self.coordinator.key, "public": self.public, "secret": self.secret
        }  # fmt: skip
        for name, key in parts.items():
            if not is_key(key):
                raise ValueError(f"{name} must be {CHARACTERS} characters of Z85")

    @property
    def keys(self) -> KeyPair:
        """The credential."""
        return KeyPair(public=self.public, secret=self.secret)


def write_join_file(path: Path, coordinator: Address, keys: KeyPair) -> None:
    """Replace the file in one step; it is never readable by others."""
    told = JoinFile(coordinator=coordinator, public=keys.public, secret=keys.secret)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(json_text(dataclasses.asdict(told), indent=1) + "\n")
    partial.replace(path)


def read_join_file(path: Path) -> JoinFile:
    """What ``write_join_file`` wrote.

    Raises:
        InputError: there is no such file.
        ConfigError: it is none of ours.
    """
    if not path.is_file():
        raise InputError(
            f"{path} is not there: a run has it while its learner is up (RUN/{JOIN_FILE})"
        )
    return from_tables(JoinFile, read_tables(path, called="join file"), where=f"join file {path}")
