"""What is no join file is said to be none, before ZeroMQ sees it."""

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.join_file import read_join_file, write_join_file
from common.places import Address
from common.wire.sockets import new_key_pair


def test_a_join_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    keys, learner = new_key_pair(), new_key_pair()
    place = Address(bind="/coordinator", key=learner.public)
    write_join_file(tmp_path / "join.json", place, keys)

    told = read_join_file(tmp_path / "join.json")

    assert (told.coordinator, told.keys) == (place, keys)


@pytest.mark.parametrize("wrong", ["", "short", "~" * 40])
def test_a_file_with_what_is_no_key_is_named(tmp_path: Path, wrong: str) -> None:
    file, learner = tmp_path / "join.json", new_key_pair().public
    write_join_file(file, Address(bind="/coordinator", key=learner), new_key_pair())
    file.write_text(file.read_text().replace(learner, wrong))

    with pytest.raises(ConfigError, match=r"join\.json: coordinator\.key must be 40 characters"):
        read_join_file(file)
