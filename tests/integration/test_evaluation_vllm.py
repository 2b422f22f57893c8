"""``lzero eval`` serves a model folder itself: the shipped checkpoint on questions in a file."""

import json
from pathlib import Path

import pytest

from actors.tools.search.index import build_index
from common.episode_record import read_evaluation
from common.tasks import write_tasks
from launch.cli import main
from launch.data.world.encyclopedia import Encyclopedia
from launch.data.world.files import evaluation_tasks
from launch.data.world.traces import write_corpus

pytestmark = [pytest.mark.nightly, pytest.mark.vllm, pytest.mark.sandbox]

MODEL, QUICKSTART = "launch/presets/warmstart", "launch/presets/quickstart.toml"
QUESTIONS = 40


def test_a_model_folder_is_served_asked_and_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = Encyclopedia(1, "heldout")
    write_corpus(world, tmp_path / "pages.jsonl")
    build_index(tmp_path / "pages.jsonl", tmp_path / "pages.sqlite")
    write_tasks(evaluation_tasks(world, QUESTIONS), tmp_path / "world.jsonl")
    command = [
        *("eval", MODEL, "--config", QUICKSTART, "--set", "policy_server.memory_gib=0.25"),
        *("--tasks", str(tmp_path / "world.jsonl"), "--corpus", str(tmp_path / "pages.sqlite")),
        *("--temperature", "1", "--json", "--out", str(tmp_path / "out")),
    ]

    status = main(command)
    result = json.loads(capsys.readouterr().out)
    again = main(command)
    printed = capsys.readouterr()

    assert (status, again) == (0, 0)
    assert json.loads(printed.out) == result
    world_scores = result["sets"]["world"]
    assert set(result["families"]["world"]) == {"one_hop", "two_hop"}
    assert (world_scores["tasks"], world_scores["failed"]) == (2 * QUESTIONS, 0)
    assert world_scores["prompt_tokens"] > world_scores["generated_tokens"] > 10
    assert 0.05 < result["families"]["world"]["one_hop"]["scores"]["exact_match"]["mean"] < 0.75
    episodes = read_evaluation(tmp_path / "out" / "episodes.jsonl")
    assert any("search" in step.tool_calls for episode in episodes for step in episode.steps)
