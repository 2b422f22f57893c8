"""The plan that processes read is the one that was written, and every fault of it is named."""

from pathlib import Path

import pytest

from common.config import Actors, Config, Transport
from common.errors import ConfigError, InputError
from common.places import LEARNER, Address, RunPlan
from common.plan_file import (
    keys_file,
    load_plan,
    own_keys,
    save_plan,
    server_place,
    tell_coordinator,
    told_coordinator,
)
from common.wire.keys import KeyPair, read_key_pair, write_key_pair
from common.wire.sockets import new_key_pair
from launch.plan.topology import RunFiles, members, plan_run


def plan(folder: Path, config: Config | None = None) -> RunPlan:
    config = config or Config()
    files = RunFiles(config=folder / "config.json", private=folder)
    return plan_run(config, files, {name: new_key_pair().public for name in members(config)})


@pytest.mark.parametrize("listen", ["", "10.0.0.7:5555"])
def test_a_plan_reads_back_equal(tmp_path: Path, listen: str) -> None:
    written = plan(tmp_path, Config(actors=Actors(processes=3), transport=Transport(listen=listen)))

    assert load_plan(save_plan(written)) == written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "plan.json"),
        ("{}", "plan.json"),
        ('{"private": 5}', "private must be"),
        ('{"servers": "s0"}', "servers must be"),
        ('{"coordinator": {"bindd": "/a"}}', "unknown key 'coordinator.bindd'"),
    ],
)
def test_what_is_no_plan_is_refused_in_words(
    tmp_path: Path, text: str | None, message: str
) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_text(text)

    with pytest.raises(ConfigError, match=message):
        load_plan(path)


def test_where_the_coordinator_listens_is_told_once_it_does(tmp_path: Path) -> None:
    planned = plan(tmp_path, Config(transport=Transport(listen="10.0.0.7:0")))
    bound = Address(bind="10.0.0.7", host="10.0.0.7", port=40123, key=planned.coordinator.key)

    before = told_coordinator(planned)
    tell_coordinator(planned, bound)

    assert before is None
    assert told_coordinator(planned) == bound
    assert load_plan(save_plan(planned)).coordinator.port == 0, "the plan itself stays"


def test_a_policy_server_is_found_by_name_and_another_name_is_refused(tmp_path: Path) -> None:
    planned = plan(tmp_path)

    assert server_place(planned, "s0") == planned.servers[0]
    with pytest.raises(InputError, match="no policy server 's1', only: s0"):
        server_place(planned, "s1")


def test_keys_are_found_by_the_name_of_their_member(tmp_path: Path) -> None:
    planned, pair = plan(tmp_path), new_key_pair()
    write_key_pair(keys_file(tmp_path, LEARNER), pair)

    assert own_keys(planned, LEARNER) == pair
    with pytest.raises(InputError, match=r"a0\.key.*they exist while the run does"):
        own_keys(planned, "a0")


def test_a_file_of_keys_is_its_owners_alone_and_never_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "a0.key"
    write_key_pair(path, new_key_pair())

    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_key_pair(path, new_key_pair())


@pytest.mark.parametrize("text", ["", "one", f"{'a' * 40}\n{'b' * 39}\n", "a b c", "\xff \xff"])
def test_a_damaged_file_of_keys_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a0.key"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(InputError, match=r"a0\.key"):
        read_key_pair(path)


def test_keys_are_never_the_same_twice_and_no_log_line_shows_the_secret_one() -> None:
    pairs = [new_key_pair() for _ in range(20)]

    assert len({key for pair in pairs for key in (pair.public, pair.secret)}) == 40
    assert all(pair.secret not in repr(pair) for pair in pairs)
    assert "s" * 40 not in f"{KeyPair(public='p' * 40, secret='s' * 40)}"
