"""What an actor did is added up over its lives, and read back whoever wrote it."""

import dataclasses
import json
from pathlib import Path

import pytest

from common.telemetry.process_totals import add_actor_totals, read_actor_totals
from common.wire.codec import decode, encode
from common.wire.session import Leave
from tests.makers import make_totals


def test_lives_of_one_name_are_added_up_and_the_kernels_are_those_of_the_last(
    tmp_path: Path,
) -> None:
    later = dataclasses.replace(make_totals(requests=5, resent=1), launcher="cold")

    add_actor_totals("a0", make_totals(requests=2), folder=tmp_path / "actors")
    add_actor_totals("a1", make_totals(), folder=tmp_path / "actors")
    add_actor_totals("a0", later, folder=tmp_path / "actors")

    both = dataclasses.replace(later, kernels_started=2, requests=7, tokens_generated=70, resent=1)
    assert read_actor_totals(tmp_path / "actors") == {"a0": both, "a1": make_totals()}


def test_who_left_nothing_is_not_there(tmp_path: Path) -> None:
    assert read_actor_totals(tmp_path / "actors") == {}


def test_files_of_earlier_versions_hold_the_name_too(tmp_path: Path) -> None:
    record = {"actor_id": "a0"} | dataclasses.asdict(make_totals(requests=4))
    (tmp_path / "a0.json").write_text(json.dumps(record))

    assert read_actor_totals(tmp_path) == {"a0": make_totals(requests=4)}


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"requests": 1}'])
def test_what_is_no_file_of_totals_is_named_and_not_replaced(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a0.json"
    file.write_text(text)

    with pytest.raises(ValueError, match=r"a0\.json has no totals of an actor"):
        add_actor_totals("a0", make_totals(), folder=tmp_path)
    assert file.read_text() == text


def test_a_goodbye_comes_as_it_was_said_with_totals_or_without() -> None:
    for leave in (Leave(reason="done"), Leave(reason="done", totals=make_totals())):
        assert decode(encode(leave)) == leave
