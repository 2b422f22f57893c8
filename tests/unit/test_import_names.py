"""Our top-level packages are this checkout, from any folder; no dependency shadows them."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["actors", "common", "launch", "learner"])
def test_installed_package_is_this_checkout(name: str, tmp_path: Path) -> None:
    probe = f"import {name}; print({name}.__path__[0])"

    found = subprocess.run(
        [sys.executable, "-c", probe], cwd=tmp_path, check=True, capture_output=True, text=True
    )

    assert Path(found.stdout.strip()) == REPOSITORY / name
