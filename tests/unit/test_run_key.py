"""The key of a run is drawn anew at each start, and only its owner can read it."""

from pathlib import Path

import pytest

from common.errors import InputError
from common.run_key import make_run_key, read_run_key


def test_a_key_is_long_private_and_never_the_same_twice(tmp_path: Path) -> None:
    keys = set()
    for _ in range(3):
        make_run_key(tmp_path)
        keys.add(read_run_key(tmp_path))

    (file,) = tmp_path.iterdir()
    assert len(keys) == 3
    assert min(map(len, keys)) >= 32
    assert file.stat().st_mode & 0o077 == 0


def test_a_missing_or_damaged_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"run\.key.*'lzero train' makes it"):
        read_run_key(tmp_path)
    (tmp_path / "run.key").write_text("short")
    with pytest.raises(InputError, match="must hold 64 characters, holds 5"):
        read_run_key(tmp_path)
