"""Every number of the configuration has a unit, a meaning and a range that is checked."""

import dataclasses
import json
import math
import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Config
from common.config.ranges import Range, Section, annotations_of
from common.config_file import load_config, save_config
from common.errors import ConfigError
from launch.run.config_pairs import check_pairs
from learner.sft.config import Sft
from tests.docstrings import explained

_FOLDER = Path(__file__).resolve().parents[2] / "launch" / "presets"
PRESETS = sorted([*_FOLDER.glob("*.toml"), *_FOLDER.glob("recipes/*.toml")])


def sections(kind: type = Config) -> Iterator[type[Section]]:
    """Every section class, those inside sections, and what a table of free names holds."""
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                assert issubclass(inner, Section), f"{inner} checks no ranges"
                yield inner
                yield from sections(inner)


SECTIONS = [*sections(), Sft]


def numbers(hint: Any) -> Iterator[Range | None]:
    """The range of each number that an annotation allows; None for one without."""
    if typing.get_origin(hint) is typing.Annotated:
        kind, *extras = typing.get_args(hint)
        ranges = [extra for extra in extras if isinstance(extra, Range)]
        if kind in (int, float):
            yield ranges[0] if len(ranges) == 1 else None
    elif hint in (int, float):
        yield None
    else:
        for inner in typing.get_args(hint):
            yield from numbers(inner)


@pytest.mark.parametrize("kind", SECTIONS, ids=lambda kind: kind.__name__)
def test_every_number_has_a_unit_a_meaning_and_a_range(kind: type[Section]) -> None:
    meant = explained(kind)
    for name, hint in annotations_of(kind).items():  # type: ignore[arg-type]
        for allowed in numbers(hint):
            assert allowed is not None, f"{kind.table()}.{name} has no Range"
            assert allowed.unit, f"{kind.table()}.{name} has no unit"
            assert math.isfinite(max(allowed.least, allowed.above)), f"{name} has no lower bound"
            assert math.isfinite(min(allowed.most, allowed.below)), f"{name} has no upper bound"
            assert name in meant, f"{kind.table()}.{name} is not explained"


def test_a_section_that_goes_around_its_ranges_cannot_be_defined() -> None:
    with pytest.raises(TypeError, match="Sly must define check instead of __post_init__"):
        type("Sly", (Section,), {"__post_init__": lambda self: None})


@given(st.floats(allow_nan=True) | st.integers())
def test_a_value_is_refused_exactly_outside_its_range(value: float) -> None:
    closed, opened = Range("s", least=0, most=10), Range("s", above=0, below=10)
    infinite, finite = Range("s", above=0, infinite=True), Range("s", above=0)

    assert bool(closed.fault(value)) is not (0 <= value <= 10)
    assert bool(opened.fault(value)) is not (0 < value < 10)
    assert bool(infinite.fault(value)) is not (value > 0)
    assert bool(finite.fault(value)) is not (0 < value < math.inf)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.steps=0", "run.steps must be at least 1, got 0 (steps"),
        ("run.name='..'", "run.name must be a plain folder name, got '..'"),
        ("run.name=''", "run.name must be a plain folder name, got ''"),
        ("run.name='a/b'", "run.name must be a plain folder name, got 'a/b'"),
        (r'run.name="a\nb"', "run.name must be a folder name without control characters"),
        (f"run.name={'x' * 200}", "run.name must be a folder name of at most 128 bytes"),
        ("learner.learning_rate=nan", "learner.learning_rate must be a finite number, got nan"),
        ("learner.learning_rate=inf", "learner.learning_rate must be a finite number, got inf"),
        ("objective.gspo.clip=[0.1, -1.0]", "objective.gspo.clip[1] must be at least 0, got -1"),
        ("run.folder=", "run.folder must be the path of a folder, got ''"),
        ("objective.discount=2", "objective.discount must be at most 1, got 2.0 (share"),
        ("objective.apg.weight_limits_positive=[2, 1]", "must be [low, high], got [2, 1]"),
        ("transport.listen='10.0.0.1:70000'", "be empty or ADDRESS:PORT, got '10.0.0.1:70000'"),
        ("transport.listen='5555'", "transport.listen must be empty or ADDRESS:PORT, got '5555'"),
        ("transport.listen=':5555'", "transport.listen must be empty or ADDRESS:PORT, got ':5555'"),
        ("transport.listen='10.0.0.1'", "must be empty or ADDRESS:PORT, got '10.0.0.1'"),
        ("transport.listen='*:5'", "must be empty or ADDRESS:PORT, got '*:5'"),
        ("transport.listen='/tmp/x:5'", "must be empty or ADDRESS:PORT, got '/tmp/x:5'"),
        ("transport.silence_s=0", "transport.silence_s must be at least 1, got 0.0 (s"),
        ("rewards.terms.f1=nan", "rewards.terms.f1 must be a finite number, got nan (weight"),
        ("model.lora.alpha=0", "model.lora.alpha must be above 0, got 0.0"),
        ("learner.groups=99999999999999999999", "learner.groups must be at most 1048576, got 9999"),
        (f"learner.groups={'9' * 400}", "learner.groups must be at most 1048576, got 9999"),
        (f"learner.groups={'9' * 5000}", "learner.groups must be a whole number, got '9999"),
        (f"learner.learning_rate=1{'0' * 400}", "learner.learning_rate must be a number, got 1000"),
        ("learner.updates_per_batch=17", "learner.updates_per_batch (17) must be at most"),
    ],
)  # fmt: skip
def test_a_doubtful_value_is_refused_by_section_and_key(
    tmp_path: Path, override: str, expected: str
) -> None:
    (tmp_path / "run.toml").touch()

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "run.toml", [override])

    assert expected in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["learner.group_size=1"], "learner.group_size must be at least 2 with"),
        (["agent.temperature=0"], "agent.temperature must be at least 0.01 to train, got 0:"),
        (["agent.temperature=0.009"], "agent.temperature must be at least 0.01 to train"),
        pytest.param(
            ["kernel.uids=49", "actors.episodes=16", "actors.processes=2"],
            "= 48 kernels can live at once and 2 ids are reserved; set kernel.uids to at least 50",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root has kernel.uids"),
        ),
        (["agent.max_observation_characters=10000"], "must be at most 8192 with model.max_context"),
        (["kernel.sandbox_memory_mib=512"], "kernel.memory_mib (1024), of one process, must be"),
        (["kernel.workspace_mib=2000"], "must be at most half of kernel.sandbox_memory_mib (2048)"),
        (["learner.batch_timeout_s=60"], "learner.batch_timeout_s (60) must be above agent"),
        (["rewards.timeout_s=90"], "transport.lease_grace_s (60) must be above rewards.timeout_s"),
        (["kernel.cpu_s=5"], "kernel.cell_timeout_s (10) must be at most kernel.cpu_s (5)"),
        (["learner.ranks=3", "learner.replicas=2"], "learner.ranks is 3, which is no multiple"),
        (["learner.ranks=2", "learner.batch_timeout_s=1800"], "at most 1740 with learner.ranks 2"),
    ],
)
def test_keys_that_exclude_each_other_are_refused_with_both_values(
    tmp_path: Path, overrides: list[str], expected: str
) -> None:
    (tmp_path / "run.toml").touch()

    with pytest.raises(ConfigError) as caught:
        check_pairs(load_config(tmp_path / "run.toml", overrides))

    assert expected in str(caught.value)


@pytest.mark.parametrize("preset", [None, *PRESETS], ids=lambda path: path and path.stem)
def test_a_saved_configuration_is_strict_json_and_reads_back_equal(
    tmp_path: Path, preset: Path | None
) -> None:
    config = Config() if preset is None else load_config(preset)
    check_pairs(config)

    save_config(config, tmp_path / "config.json")

    json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.json", b"null", "must hold a table of sections, got null"),
        ("c.json", b"[1]", "must hold a table of sections, got [1]"),
        ("c.json", b"[" * 100_000, "cannot be parsed: not usable JSON: brackets are nested too"),
        ("c.toml", b"a = " + b"[" * 100_000, "cannot be parsed: it is nested too deeply"),
        ("c.json", b'{"run": ' + b"9" * 5000 + b"}", "not usable JSON: a number of 5000 digits"),
        ("c.toml", b"[run]\nseed = " + b"9" * 5000, "cannot be parsed: Exceeds the limit"),
        ("c.toml", b"\xff\xfe[\x00", "line 1 is not UTF-8"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_table_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / name)

    assert expected in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"), [("c.toml", "[run]\nseed = 3\n"), ("c.json", '{"run": {"seed": 3}}')]
)
def test_a_byte_order_mark_does_no_harm(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")

    assert load_config(tmp_path / name).run.seed == 3


def test_a_key_of_another_section_is_shown_with_its_section(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[learner]\ntemperature = 0.5\n")

    with pytest.raises(
        ConfigError, match=r"'learner.temperature'; did you mean 'agent.temperature'"
    ):
        load_config(tmp_path / "c.toml")
