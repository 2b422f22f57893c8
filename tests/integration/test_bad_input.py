"""Bad input ends ``lzero train`` in one clear line and a non-zero exit, before anything starts."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from actors.tools.search.index import build_index
from common.config_file import save_config
from common.errors import InputError
from launch.run.choices import choose
from launch.run.folder import RunFolder, RunState, locked
from launch.run.inputs import write_inputs
from launch.run.preflight import check_run
from launch.run.train import TrainRequest, resolve_config, train
from tests.tiny_text_model import make_text_model

TASK = {"task_id": "a", "question": "Who wrote Silent Harbor?", "answers": ["Anna Keller"]}
PAGE = {"title": "Silent Harbor", "text": "Silent Harbor, novel by Anna Keller."}


@dataclass(frozen=True)
class Trial:
    """A folder with everything a run needs, for a test to break one thing."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "run.toml"

    @property
    def tasks(self) -> Path:
        return self.folder / "tasks.jsonl"

    def lzero_train(self, *arguments: str, path: str | None = None) -> str:
        """Run the real command, which must refuse before it makes a folder; the line it says."""
        line = self.refused(*arguments, path=path)
        assert not (self.folder / "runs").exists(), "something was started"
        return line

    def refused(self, *arguments: str, path: str | None = None) -> str:
        """Run the real command, which must refuse; the one line it says."""
        command = [sys.executable, "-m", "launch.cli", "train", str(self.config), *arguments]
        environment = {**os.environ, "PATH": path if path is not None else os.environ["PATH"]}

        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    (tmp_path / "corpus.jsonl").write_text(json.dumps(PAGE))
    build_index(tmp_path / "corpus.jsonl", tmp_path / "corpus.sqlite")
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK) + "\n")
    make_text_model(tmp_path / "model")
    trial = Trial(tmp_path)
    trial.config.write_text(
        f"""
        [run]
        folder = "{tmp_path}/runs"
        [model]
        path = "{tmp_path}/model"
        max_context = 512
        [tasks]
        train = "{tmp_path}/tasks.jsonl"
        train_corpus = "{tmp_path}/corpus.sqlite"
        """
    )
    return trial


def test_a_missing_config_file(trial: Trial) -> None:
    trial.config.unlink()

    assert "run.toml does not exist" in trial.lzero_train()


def test_an_unknown_key_gets_a_suggestion(trial: Trial) -> None:
    line = trial.lzero_train("--set", "learner.max_stalenes=2")

    assert "unknown key 'learner.max_stalenes'; did you mean 'learner.max_staleness'?" in line


def test_a_mistyped_value(trial: Trial) -> None:
    line = trial.lzero_train("--set", "learner.groups=many")

    assert "learner.groups must be a whole number, got 'many'" in line


def test_a_missing_model_folder(trial: Trial) -> None:
    shutil.rmtree(trial.folder / "model")

    assert "/model' is not a folder; expected a local Hugging Face folder" in trial.lzero_train()


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_incomplete_model_folder(trial: Trial, file: str) -> None:
    (trial.folder / "model" / file).unlink()

    assert "model folder" in (line := trial.lzero_train())
    assert file.removeprefix("model") in line


def test_a_context_longer_than_the_model_allows(trial: Trial) -> None:
    line = trial.lzero_train("--set", "model.max_context=4096")

    assert "model.max_context is 4096" in line


def test_a_malformed_task_file(trial: Trial) -> None:
    trial.tasks.write_text(json.dumps(TASK) + '\n{"task_id": "b", "question": "Who?"}\n')

    assert "tasks.jsonl, line 2: field 'answers' is missing" in trial.lzero_train()


def test_a_task_that_names_an_unknown_corpus(trial: Trial) -> None:
    trial.tasks.write_text(json.dumps({**TASK, "corpus": "wikipedia"}))

    assert "task 'a' names the corpus 'wikipedia'" in trial.lzero_train()


def test_a_missing_search_index(trial: Trial) -> None:
    (trial.folder / "corpus.sqlite").unlink()

    assert "corpus.sqlite' does not exist" in trial.lzero_train()


def test_direct_mode_calls_no_tool_and_needs_no_index(trial: Trial) -> None:
    no_index = "tasks.train_corpus=''"

    config = resolve_config(
        TrainRequest(config=trial.config, overrides=("agent.mode=direct", no_index))
    )

    check_run(config)
    assert "tasks.train_corpus is empty" in trial.lzero_train("--set", no_index)


def test_a_search_index_that_is_none(trial: Trial) -> None:
    shutil.copy(trial.folder / "corpus.jsonl", trial.folder / "corpus.sqlite")

    assert "corpus.sqlite' is not a SQLite file" in trial.lzero_train()


def test_an_address_in_use(trial: Trial) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        line = trial.lzero_train("--set", f"transport.listen='{address}'")

    assert f"cannot listen at {address}: Address already in use" in line
    assert "transport.listen" in line


def test_an_address_that_is_none(trial: Trial) -> None:
    line = trial.lzero_train("--set", "transport.listen=5555")

    assert "transport.listen must be" in line


def test_bubblewrap_missing(trial: Trial) -> None:
    line = trial.lzero_train(path=str(trial.folder))

    assert "bubblewrap (bwrap) is missing" in line
    assert "apt-get install bubblewrap" in line


def test_nothing_to_resume(trial: Trial) -> None:
    assert "nothing to resume" in trial.lzero_train("--resume")


@pytest.mark.parametrize("name", ["a/b", ""])
def test_a_name_that_can_be_no_folder(trial: Trial, name: str) -> None:
    assert f"plain folder name, got '{name}'" in trial.lzero_train("--name", name)


def test_a_resume_with_another_configuration_changes_nothing(trial: Trial) -> None:
    run = trial.folder / "runs" / "run"
    run.mkdir(parents=True)
    RunFolder(run).write_state(RunState(status="failed", started_at=0.0))
    overrides = ["run.seed=7", f"run.folder={trial.folder}/runs"]
    save_config(
        resolve_config(TrainRequest(config=trial.config, overrides=tuple(overrides))),
        run / "config.json",
    )
    before = {file: file.read_bytes() for file in run.iterdir()}

    line = trial.refused("--resume")

    assert "run.seed was 7 and is 0 now" in line
    assert "--set run.seed=7" in line
    assert {file: file.read_bytes() for file in run.iterdir()} == before


def begun(trial: Trial) -> RunFolder:
    """What a run leaves that was begun and then interrupted."""
    given, _ = choose(resolve_config(TrainRequest(config=trial.config)))
    folder = RunFolder(trial.folder / "runs" / "run")
    with locked(folder):
        save_config(given, folder.config)
    write_inputs(folder.inputs, given)
    folder.write_state(RunState(status="interrupted", started_at=0.0))
    return folder


def test_a_run_that_fails_before_its_first_process_has_failed(trial: Trial) -> None:
    folder = begun(trial)
    folder.inputs.unlink()
    folder.inputs.with_name(f"{folder.inputs.name}.partial").mkdir()  # nothing can be written there

    with pytest.raises(IsADirectoryError):
        train(TrainRequest(config=trial.config, resume=True), Console(file=io.StringIO()))

    assert (state := folder.read_state()) is not None
    assert state.status == "failed"


def test_a_resume_with_other_tasks_under_the_same_path_starts_nothing(trial: Trial) -> None:
    folder = begun(trial)
    trial.tasks.write_text(json.dumps({**TASK, "question": "Another?"}) + "\n")
    console = Console(file=io.StringIO(), width=200)
    request = TrainRequest(config=trial.config, resume=True, overrides=("actors.episodes=3",))

    with pytest.raises(InputError, match=r"begun with other contents of: tasks.train \("):
        train(request, console)

    assert (state := folder.read_state()) is not None
    assert state.status == "interrupted"
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "actors.episodes was" in said
