"""Set-up refuses an old Python and does nothing when nothing changed."""

from pathlib import Path

import pytest

from launch.setup_environment import SetupError, check_python, fingerprint, is_current


def test_an_old_python_is_refused_with_the_way_out() -> None:
    with pytest.raises(SetupError, match=r"Python 3.11 or newer is needed.*PYTHON=python3.11"):
        check_python((3, 9))
    check_python((3, 11))
    check_python((3, 14))


def test_a_stamp_of_another_fingerprint_is_not_current(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp"
    assert not is_current(stamp, fingerprint())

    stamp.write_text(fingerprint())

    assert is_current(stamp, fingerprint())
    assert not is_current(stamp, "another")
