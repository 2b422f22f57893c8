"""A resume changes nothing that the saved state depends on, and names what it changes."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.config_file import config_from_tables, keys_of, load_config, save_config
from common.errors import InputError
from launch.run.continuation import FIXED, FREE, changes, check_continuation, names


def config(**sections: dict[str, Any]) -> Config:
    return config_from_tables(sections, where="test")


def saved(folder: Path, config: Config) -> Path:
    save_config(config, folder / "config.json")
    return folder / "config.json"


def test_every_key_is_either_fixed_or_free() -> None:
    every, fixed, free = set(keys_of(Config)), names(FIXED), names(FREE)

    assert fixed | free == every, "a key is in neither table, or in a table and no key"
    assert not fixed & free


@pytest.mark.parametrize("key", sorted(names(FIXED) | names(FREE)))
def test_a_change_of_any_key_is_seen(key: str) -> None:
    then = Config()
    part = table = dataclasses.asdict(then)
    *inner, last = key.split(".")
    for step in inner:
        part = part[step]
    part[last] = other_than(part[last])

    found = changes(then, Unchecked(table))  # type: ignore[arg-type]

    assert [change.key for change in found] == [key]


def other_than(value: Any) -> Any:
    if isinstance(value, dict):
        return {**value, "other": 1}
    return f"{value}x" if isinstance(value, str) else [value, "other"]


class Unchecked:
    """Attributes out of nested tables, whatever their values."""

    def __init__(self, table: dict[str, Any]) -> None:
        for name, value in table.items():
            is_section = isinstance(value, dict) and name not in ("terms", "mcp", "services")
            setattr(self, name, Unchecked(value) if is_section else value)


def test_the_same_configuration_goes_on(tmp_path: Path) -> None:
    given = config(run={"seed": 7}, objective={"name": "token_tis"})

    assert check_continuation(saved(tmp_path, given), given, steps_done=3) == []


def test_what_may_not_change_is_refused_with_both_values_and_what_to_do(tmp_path: Path) -> None:
    file = saved(tmp_path, config(run={"seed": 7}, learner={"group_size": 4}))
    before = file.read_bytes()

    with pytest.raises(InputError) as caught:
        check_continuation(file, Config(), steps_done=None)

    text = str(caught.value)
    assert "run.seed was 7 and is 0 now; learner.group_size was 4 and is 8 now" in text
    assert "(--set run.seed=7 --set learner.group_size=4), or begin a new run with --name" in text
    assert file.read_bytes() == before


def test_the_options_given_are_those_of_a_shell_and_work(tmp_path: Path) -> None:
    given = config(
        agent={"tools": ["notepad", "submit_final_answer"]}, tools={"search": {"results": 2}}
    )
    file = saved(tmp_path, given)

    with pytest.raises(InputError) as caught:
        check_continuation(file, Config(), steps_done=None)

    options = str(caught.value).partition("again (")[2].partition("), or")[0]
    words = [word for word in shlex.split(options) if word != "--set"]
    (tmp_path / "run.toml").touch()
    again = load_config(tmp_path / "run.toml", words)
    assert check_continuation(file, again, steps_done=None) == []


def test_what_may_change_is_named(tmp_path: Path) -> None:
    file = saved(tmp_path, config(learner={"ranks": 1, "learning_rate": 1e-4}))
    now = config(learner={"ranks": 2, "learning_rate": 1e-5}, kernel={"launcher": "jupyter"})

    found = check_continuation(file, now, steps_done=None)

    assert [str(change) for change in found] == [
        "kernel.launcher was 'auto' and is 'jupyter' now",
        "learner.ranks was 1 and is 2 now",
        "learner.learning_rate was 0.0001 and is 1e-05 now",
    ]


def test_rewards_and_servers_are_compared_by_content(tmp_path: Path) -> None:
    file = saved(tmp_path, config(rewards={"terms": {"f1": 1.0}}))

    assert not check_continuation(file, config(rewards={"terms": {"f1": 1.0}}), steps_done=None)
    with pytest.raises(InputError, match=r"rewards.terms was {f1 = 1.0} and is {f1 = 0.5} now"):
        check_continuation(file, config(rewards={"terms": {"f1": 0.5}}), steps_done=None)


def test_the_files_of_a_moved_world_are_no_change_and_another_address_is_a_free_one(
    tmp_path: Path,
) -> None:
    world = {"enabled": True}
    then = config(world=world, tasks={"train": "/old/train.jsonl"})
    now = config(world=world, tasks={"train": "/new/train.jsonl"})
    elsewhere = config(world=world, transport={"listen": "127.0.0.1:5"})

    assert changes(then, now) == []
    allowed = check_continuation(saved(tmp_path, then), elsewhere, steps_done=None)
    assert [change.key for change in allowed] == ["transport.listen"]


def test_fewer_steps_than_done_are_refused_and_more_are_not(tmp_path: Path) -> None:
    file = saved(tmp_path, config(run={"steps": 10}))

    with pytest.raises(InputError, match=r"run.steps is 4, but .* has a checkpoint of 6 steps"):
        check_continuation(file, config(run={"steps": 4}), steps_done=6)
    assert [c.key for c in check_continuation(file, config(run={"steps": 20}), steps_done=6)] == [
        "run.steps"
    ]


def test_a_run_whose_training_is_over_takes_no_more_steps(tmp_path: Path) -> None:
    file = saved(tmp_path, config(run={"steps": 10}))

    with pytest.raises(InputError, match=r"training of the run .* is over after 10 steps"):
        check_continuation(file, config(run={"steps": 20}), steps_done=10, is_trained=True)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"run": {"bygone": 1}}, "unknown key 'run.bygone'"),
        ({"bygone": {"a": 1}}, "unknown key 'bygone'"),
        ({"kernel": {"cell_timeout_s": -1}}, "kernel.cell_timeout_s must be at least 0.1"),
        ({"objective": {"advantage": None}}, "lacks objective.advantage, and cannot be resumed"),
        ({"evaluation": None}, r"lacks evaluation.control, evaluation.greedy_per_family, .*"),
    ],
)
def test_a_run_of_another_version_says_what_to_do(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    tables = json.loads(saved(tmp_path, Config()).read_text())
    for section, keys in change.items():
        if keys is None:
            del tables[section]
            continue
        table = tables.setdefault(section, {})
        table |= keys
        tables[section] = {name: value for name, value in table.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(tables))

    with pytest.raises(InputError, match=expected) as caught:
        check_continuation(tmp_path / "config.json", Config(), steps_done=None)

    assert "begin a new run (--name) from its newest checkpoint" in str(caught.value)


def test_a_free_key_that_an_earlier_version_lacked_is_named(tmp_path: Path) -> None:
    tables = json.loads(saved(tmp_path, Config()).read_text())
    del tables["objective"]["gae"]["step_decay"]
    (tmp_path / "config.json").write_text(json.dumps(tables))

    found = check_continuation(tmp_path / "config.json", Config(), steps_done=None)

    assert [str(c) for c in found] == [
        "objective.gae.step_decay is new in this version and is 0.95"
    ]


def test_a_run_whose_configuration_is_gone_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config.json is gone, but .* a checkpoint of 3 steps"):
        check_continuation(tmp_path / "config.json", Config(), steps_done=3)


def test_a_command_that_began_nothing_has_nothing_to_compare(tmp_path: Path) -> None:
    assert check_continuation(tmp_path / "config.json", Config(), steps_done=None) == []
