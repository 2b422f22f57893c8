"""Every shipped recipe can be loaded, fits the hardware it names, and is on the page."""

import json
from pathlib import Path

import pytest

from common.config_file import load_config
from common.model_config import CONFIG, read_model_config
from launch.models.model_checks import check_context
from launch.run.config_pairs import check_pairs
from launch.run.preflight import check_agent
from launch.sizing.fit import Machine, check_room, gpus_needed
from launch.sizing.recipes import COMMAND, PRESET_FOLDER, PRESETS, description_of, page
from launch.sizing.step_time import H100
from learner.engine.memory import GIB
from learner.engine.model_shape import shape_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((PRESET_FOLDER / "recipes").glob("q*.toml"))
PUBLISHED_SIZES = {
    "Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-1.7B": 1_720_574_976,
    "Qwen3-4B": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Qwen3-14B": 14_768_307_200,
    "Qwen3-32B": 32_762_123_264,
}


def test_there_is_a_recipe_for_every_model() -> None:
    models = {Path(load_config(recipe).model.path).name for recipe in RECIPES}

    assert models == set(PUBLISHED_SIZES)
    assert {preset.path for preset in PRESETS} >= set(RECIPES)
    assert all(preset.path.is_file() for preset in PRESETS)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_run_that_could_start(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    folder = tmp_path / Path(config.model.path).name
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(description_of(config)))

    check_pairs(config)
    check_agent(config)
    description = read_model_config(folder)
    check_context(description, folder / CONFIG, config.model.max_context)

    assert config.run.name == recipe.stem
    heads = shape_of(description)
    assert heads.heads % config.policy_server.tensor_parallel == 0
    assert heads.key_heads % config.policy_server.tensor_parallel == 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_the_gpus_it_is_for_with_nothing_lacking(recipe: Path) -> None:
    config = load_config(recipe)
    machine = Machine(gpus=(H100.memory,) * gpus_needed(config), host=1500 * GIB)

    assert gpus_needed(config) in (1, 2, 4, 8)
    assert not [text for text in check_room(description_of(config), config, machine)
                if "too little" in text]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_known_model_has_the_size_that_it_was_published_with(recipe: Path) -> None:
    config = load_config(recipe)

    size = shape_of(description_of(config)).parameters

    assert size == PUBLISHED_SIZES[Path(config.model.path).name]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_have_the_published_settings(recipe: Path) -> None:
    config = load_config(recipe)
    learner, objective = config.learner, config.objective

    assert (learner.groups, learner.group_size) == (64, 4)
    assert (learner.learning_rate, objective.discount) == (1e-6, 0.95)
    assert (objective.kl_reference, objective.kl_estimator) == (1e-3, "k3")
    assert (config.model.max_context, config.agent.max_action_tokens) == (16384 + 3072, 3072)
    assert (learner.checkpoint_every, config.evaluation.during_every) == (10, 50)


def test_only_what_was_run_says_so() -> None:
    marks = {preset.file: preset.mark for preset in PRESETS}

    assert {mark for file, mark in marks.items() if file.startswith("recipes/")} == {"computed"}


def test_the_page_about_recipes_is_not_stale() -> None:
    written = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")

    assert COMMAND in written
    assert written == page(), f"docs/recipes.md is stale; run {COMMAND}"
