"""What a run chooses itself: compute type and threads, and that what was given stays."""

import json
import sys
from pathlib import Path

import pytest

from common.config import Config, Learner, Model, PolicyServer
from common.config_file import save_config
from common.processor import bfloat16_instructions, cores
from launch.run.choices import (
    as_begun,
    choose,
    choose_for_sft,
    read_choices,
    threads_for,
    write_choices,
)
from learner.engine import compute_type as measuring
from learner.engine.compute_type import WORTH_IT, decide, product_seconds
from learner.sft.config import Sft
from tests.tiny_policy import make_model

XEON = """processor\t: 0
flags\t\t: fpu sse2 avx512f {}

processor\t: 1
flags\t\t: fpu sse2 avx512f
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        (XEON.format("avx512_bf16 amx_bf16 amx_tile"), ["amx_bf16", "avx512_bf16"]),
        (XEON.format("avx512_vnni"), []),
        ("processor : 0\nFeatures : fp asimd bf16 i8mm\n", ["bf16"]),
        ("", []),
    ],
)
def test_instructions_for_bfloat16_are_found_by_their_names(
    tmp_path: Path, cpuinfo: str, found: list[str]
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)

    assert bfloat16_instructions(tmp_path / "cpuinfo") == found


def test_a_machine_that_says_nothing_of_its_processor_has_none(tmp_path: Path) -> None:
    assert bfloat16_instructions(tmp_path / "nothing") == []


def test_bfloat16_must_win_by_enough() -> None:
    assert decide(WORTH_IT * 2.0, 2.0, width=576)[0] == "bfloat16"
    assert decide(WORTH_IT * 2.0 - 0.01, 2.0, width=576)[0] == "float32"


def test_the_reason_says_what_was_measured() -> None:
    assert decide(0.0264, 0.0783, width=576) == (
        "float32", "a product of width 576 took 26.4 ms in float32 and 78.3 ms in bfloat16"
    )  # fmt: skip


def test_a_processor_without_the_instructions_is_not_faster_in_bfloat16() -> None:
    if bfloat16_instructions():
        pytest.skip("this processor multiplies bfloat16")

    single, half = product_seconds(512, 1024)

    assert decide(single, half, width=512)[0] == "float32"


def test_a_small_model_computes_in_float32_on_one_thread(folder: Path) -> None:
    config, made = choose(Config(model=Model(path=str(folder))))

    assert (config.model.dtype, config.learner.threads, config.policy_server.threads) == (
        "float32", 1, 1
    )  # fmt: skip
    assert [choice.key for choice in made] == [
        "model.dtype", "learner.threads", "policy_server.threads"
    ]  # fmt: skip


def test_what_the_configuration_says_stays(folder: Path) -> None:
    given = Config(
        model=Model(path=str(folder), dtype="bfloat16"),
        learner=Learner(threads=3),
        policy_server=PolicyServer(threads=2),
    )

    assert choose(given) == (given, ())


def test_fine_tuning_chooses_alike(folder: Path) -> None:
    given = Sft(model=str(folder), traces="t", output="o")

    config, made = choose_for_sft(given)

    assert (config.compute_dtype, config.threads) == ("float32", 1)
    assert [choice.key for choice in made] == ["sft.compute_dtype", "sft.threads"]
    assert choose_for_sft(config) == (config, ())


def test_ranks_share_the_cores_of_a_large_model(folder: Path) -> None:
    text = json.loads((folder / "config.json").read_text())
    large = text | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    (folder / "config.json").write_text(json.dumps(large))

    assert threads_for(folder)[0] == cores()
    assert threads_for(folder, processes=cores())[0] == 1
    assert threads_for(folder, processes=3 * cores())[0] == 1


def test_a_run_goes_on_in_the_type_it_began_with(tmp_path: Path) -> None:
    saved = tmp_path / "config.json"
    save_config(Config(model=Model(dtype="bfloat16")), saved)

    assert as_begun(Config(), saved).model.dtype == "bfloat16"
    assert as_begun(Config(model=Model(dtype="float32")), saved).model.dtype == "float32"
    assert as_begun(Config(), tmp_path / "none.json").model.dtype == "auto"


def test_choices_are_read_as_they_were_written(tmp_path: Path, folder: Path) -> None:
    _, made = choose(Config(model=Model(path=str(folder))))

    write_choices(tmp_path / "choices.json", made)

    assert read_choices(tmp_path / "choices.json") == made
    assert read_choices(tmp_path / "other.json") == ()


def test_the_measuring_process_prints_its_choice(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["compute_type", str(folder)])

    assert measuring.main() == 0

    told = json.loads(capsys.readouterr().out)
    assert told["dtype"] in ("float32", "bfloat16")
    assert told["reason"]
