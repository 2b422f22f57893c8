"""The configuration has few keys, each is explained in one place; old ones say what to write."""

import json
import os
import re
import subprocess
import sys
import tomllib
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from common.config import Config
from common.config.meaning import tables_below
from common.config.ranges import Section, is_key
from common.config.renamed import REMOVED, RENAMED
from common.config_file import config_from_tables, keys_of, load_config
from common.errors import ConfigError
from launch.cli import main
from launch.report.configuration import COMMAND, as_tables, as_toml, page
from learner.sft.config import FineTuning

ROOT = Path(__file__).resolve().parents[2]
PRESETS = [ROOT / "launch" / "presets" / "quickstart.toml"]
PRESETS += sorted((ROOT / "launch" / "presets" / "recipes").glob("*.toml"))
MOST_KEYS = 124
"""Without those of a chosen objective, and of services, suites and servers that the user names."""
CHOSEN = ("apg", "topr", "token_tis", "gspo", "decoupled_ppo", "gae")
NAMED = ("services", "tools.mcp", "evaluation.suites", "tasks.sources")


def test_there_are_few_keys() -> None:
    chosen = tuple(f"objective.{name}." for name in CHOSEN)
    core = [key for key in keys_of(Config) if not key.startswith(chosen) and key not in NAMED]

    assert len(core) <= MOST_KEYS


def hints(kind: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        inner = (hint, *typing.get_args(hint))
        sections = [part for part in inner if isinstance(part, type) and issubclass(part, Section)]
        found += [(f"{kind.__name__}.{name}", hint)] if name != "AT" and is_key(hint) else []
        found += [each for part in sections for each in hints(part)]
    return found


@pytest.mark.parametrize(("key", "hint"), [*hints(Config), *hints(FineTuning)])
def test_a_table_of_free_names_holds_sections_or_numbers(key: str, hint: Any) -> None:
    """Nothing is a bag of options that no section checks."""
    if typing.get_origin(hint) is dict:
        name, value = typing.get_args(hint)
        is_section = isinstance(value, type) and issubclass(value, Section)
        assert name is str
        assert is_section or typing.get_origin(value) is typing.Annotated, key
    else:
        assert hint not in (dict, object, Any), key


def test_every_key_and_every_table_is_explained() -> None:
    for table in (*tables_below(Config), *tables_below(FineTuning)):
        assert table.meaning
        for key in table.keys:
            assert key.meaning.endswith((".", ".)")), f"{table.header} {key.name}"


def test_the_page_is_not_stale() -> None:
    """Run the command of the page after a change of a section."""
    written = (ROOT / "docs" / "configuration.md").read_text()

    assert COMMAND in written
    assert written == page(), f"docs/configuration.md is stale; run {COMMAND}"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.stem
)
def test_a_page_names_only_keys_that_there_are(page: Path) -> None:
    sections = "|".join(field.name for field in fields(Config))
    named = re.findall(rf"`((?:{sections})(?:\.[a-z_]+)+)[` =]", page.read_text())
    known = keys_of(Config)
    tables = {key[:end] for key in known for end in range(len(key)) if key[end] == "."}

    def is_no_key(name: str) -> bool:
        """The name of a file, of a module, or below a name of the user's."""
        is_file = name.endswith((".jsonl", ".toml", ".md", ".py"))
        is_module = (ROOT / f"{name.replace('.', '/')}.py").is_file()
        return is_file or is_module or name.startswith(("tools.mcp", "services"))

    assert {name for name in named if not is_no_key(name)} <= {*known, *tables}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_what_is_shown_is_a_file_that_says_the_same(preset: Path, tmp_path: Path) -> None:
    config = load_config(preset)
    (tmp_path / "shown.toml").write_text(as_toml(config))

    assert load_config(tmp_path / "shown.toml") == config


def test_names_that_toml_would_take_apart_are_quoted(tmp_path: Path) -> None:
    config = config_from_tables(
        {
            "rewards": {"terms": {"my.rewards:brevity": -0.5}},
            "tools": {"mcp": {"a.b": {"command": ["x", '"y"']}}},
            "services": {"a b": {"base_url": "http://x"}},
            "objective": {"name": "token_tis", "token_tis": {"cap": "Infinity"}},
        },
        where="test",
    )
    (tmp_path / "shown.toml").write_text(as_toml(config))

    assert load_config(tmp_path / "shown.toml") == config


def test_the_command_shows_value_default_meaning_unit_and_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_text("[kernel]\ncell_timeout_s = 3\n")

    assert main(["config", str(tmp_path / "run.toml"), "--json", "--set", "run.seed=5"]) == 0
    shown = json.loads(capsys.readouterr().out)

    assert shown["kernel.cell_timeout_s"] == {
        "value": 3.0,
        "meaning": "Wall time of one cell before it is interrupted.",
        "allowed": "number, at least 0.1 and at most 86400",
        "unit": "s",
        "default": 10.0,
    }
    assert shown["run.seed"]["value"] == 5
    free = {"services", "tools.mcp", "evaluation.suites", "tasks.sources"}
    assert set(keys_of(Config)) - free == set(shown)


def test_without_a_file_the_command_shows_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config"]) == 0

    assert config_from_tables(tomllib.loads(capsys.readouterr().out), where="") == Config()


def test_suites_and_servers_are_shown_by_name() -> None:
    server, suite = {"url": "http://x"}, {"name": "mine", "tasks": "t.jsonl"}
    tables = {"tools": {"mcp": {"docs": server}}, "evaluation": {"suites": [suite]}}

    shown = as_tables(config_from_tables(tables, where="test"))

    assert shown["tools.mcp.docs.url"]["value"] == "http://x"
    assert shown["evaluation.suites.mine.tasks"]["default"] is None


@pytest.mark.parametrize("key", [*RENAMED, *REMOVED])
def test_an_earlier_key_is_refused_with_what_to_write_instead(key: str) -> None:
    assert key not in keys_of(Config)
    section, name = key.split(".")

    with pytest.raises(ConfigError) as caught:
        config_from_tables({section: {name: 1}}, where="run.toml")

    said = RENAMED.get(key) or REMOVED[key]
    assert str(caught.value).startswith(f"run.toml: {key} is ")
    assert str(caught.value).endswith(said)


@pytest.mark.parametrize("target", RENAMED.values())
def test_the_new_name_of_a_key_is_one(target: str) -> None:
    words = [word for word in target.replace(",", "").split() if "." in word and word[0] != "["]

    assert set(words) <= set(keys_of(Config)), target


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run.trajectories_mib", 256),
        ("kernel.grace_s", 1.0),
        ("kernel.inodes", 16384),
        ("agent.notepad_characters", 4000),
        ("transport.buffer_mib", 256),
        ("objective.token_veto", 10000.0),
        ("tools.web.attempts", 3),
    ],
)
def test_a_key_that_became_a_constant_says_its_value(key: str, value: float) -> None:
    tables: Any = value
    for part in reversed(key.split(".")):
        tables = {part: tables}

    with pytest.raises(ConfigError, match=rf"{key} is no key any more: it is fixed at {value} now"):
        config_from_tables(tables, where="run.toml")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("run.name=foo", "foo"),
        ("run.folder=/tmp/x", "/tmp/x"),
        ("run.folder=2026/runs", "2026/runs"),
        ('run.name="007"', "007"),
        ("run.name=a b", "a b"),
        ("agent.mode=direct", "direct"),
        ("transport.listen=10.0.0.1:5000", "10.0.0.1:5000"),
        ('services."my.own".base_url=http://x', "http://x"),
    ],
)
def test_a_plain_word_is_a_string(tmp_path: Path, override: str, value: str) -> None:
    (tmp_path / "run.toml").touch()

    shown = as_tables(load_config(tmp_path / "run.toml", [override]))

    assert value in [each["value"] for each in shown.values()]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.name=007", "a text stands in quotes: --set 'run.name=\"007\"'"),
        ("run.name=7", 'run.name must be a string, got 7 (a text stands in quotes: "7")'),
        ("run.name=true", 'run.name must be a string, got true (a text stands in quotes: "true")'),
        ("run.name=2026-11-27", 'got 2026-11-27 (a text stands in quotes: "2026-11-27")'),
        ("run.name={a = [1, false]}", "run.name must be a string, got {a = [1, false]}"),
        ("learner.groups={name = 'x'}", 'must be a whole number, got {name = "x"}'),
        ("run.name='x", "is no TOML value"),
        ("agent.tools=[search]", "is no TOML value; for example: --set 'agent.tools=[\"text\"]'"),
        ("objective.gspo.clip=low", "for example: --set 'objective.gspo.clip=[0.5, 0.5]'"),
        ("rewards.terms=f1", "for example: --set 'rewards.terms={name = 0.5}'"),
        ("evaluation.suites=x", "evaluation.suites=[{name = \"text\", tasks = \"text\"}]'"),
        ("learner.groups=many", "must be a whole number, got 'many', which is no TOML"),
        ("learner.learning_rate=1e-", "must be a number, got '1e-', which is no TOML"),
        ("world.enabled=yes", "world.enabled must be true or false, got 'yes', which is no TOML "
         "value; for example: --set world.enabled=true"),
        ("world.enabled=True", "got 'True', which is no TOML value; for example: --set"),
        ("run.nam=x", "unknown key 'run.nam'; did you mean 'run.name'?"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_said_with_what_works(tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "run.toml").touch()

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.toml", [override])

    assert said in str(caught.value)


def test_a_reader_that_wants_no_more_is_no_error() -> None:
    command = [sys.executable, "-m", "launch.cli", "config", "--page"]
    read, write = os.pipe()
    os.close(read)

    with os.fdopen(write, "wb") as gone:
        result = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, check=False)

    assert (result.returncode, result.stderr) == (0, b"")
