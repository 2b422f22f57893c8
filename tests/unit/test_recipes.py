"""Every shipped recipe can be loaded, fits the hardware it names, and is on the page."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from common.config_file import load_config
from common.errors import MachineError
from common.model_config import CONFIG, read_model_config
from launch.models.model_checks import check_model
from launch.run.config_pairs import check_pairs
from launch.run.preflight import check_agent, check_machine
from launch.sizing.fit import Machine, check_room, gpus_needed
from launch.sizing.recipes import COMMAND, PRESET_FOLDER, PRESETS, description_of, page
from launch.sizing.step_time import H100
from learner.engine.memory import GIB
from learner.engine.model_shape import shape_of

WARMSTART = PRESET_FOLDER / "warmstart"
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


def empty_model(folder: Path, description: dict[str, Any]) -> Path:
    """A model folder of the right shape; its weights are holes in a file, and take no disk."""
    shutil.copytree(WARMSTART, folder, ignore=shutil.ignore_patterns("*.safetensors", CONFIG))
    (folder / CONFIG).write_text(json.dumps(description))
    header, end = {}, 0
    for name, size in shape_of(description).tensors().items():
        begin, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_run_that_could_start(recipe: Path, tmp_path: Path) -> None:
    config = load_config(recipe)
    folder = empty_model(tmp_path / "model", description_of(config))

    check_pairs(config)
    check_agent(config)
    check_model(folder, max_context=config.model.max_context)

    assert config.run.name == recipe.stem
    shape = shape_of(read_model_config(folder))
    assert shape.heads % config.policy_server.tensor_parallel == 0
    assert shape.key_heads % config.policy_server.tensor_parallel == 0


def test_a_model_that_is_too_large_for_this_machine_is_refused(tmp_path: Path) -> None:
    """A CPU with the memory for 32 B weights, their gradients and moments would be a surprise."""
    config = load_config(PRESET_FOLDER / "recipes" / "qwen3-32b.toml")
    folder = empty_model(tmp_path / "model", description_of(config))

    with pytest.raises(MachineError, match=r"needs (at least about|8 GPUs|about)"):
        check_machine(config, folder)


def test_the_shipped_model_fits_this_machine_but_not_with_packs_of_a_billion_tokens() -> None:
    config = load_config(PRESET_FOLDER / "quickstart.toml")
    learner = dataclasses.replace(config.learner, pack_tokens=10**9)

    check_machine(config, WARMSTART)
    with pytest.raises(MachineError, match=r"a learner rank needs .* learner.pack_tokens = 512"):
        check_machine(dataclasses.replace(config, learner=learner), WARMSTART)


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
