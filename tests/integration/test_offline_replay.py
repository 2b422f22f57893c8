"""A run is trained again from its journal: the same to the last bit, or it is said what is not.

Learner, coordinator, journal and checkpoints of the run are the real ones; its policy is a script.
"""

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from common.config_file import save_config
from launch.cli import main
from launch.journal.place import find_journal
from launch.replay.comparison import read_recorded
from launch.replay.outcome import ReplayOutcome
from launch.replay.planning import ReplayRequest, plan_replay, task_of
from launch.replay.run import outcome_of
from launch.run.folder import RunFolder
from learner.checkpoints.files import checkpoint_name
from learner.coordination.changes import Accepted
from learner.coordination.recorded import read_change
from learner.journal.format import RECORD_HEADER_BYTES
from learner.journal.segments import Place, segment_files
from learner.journal.survey import survey
from learner.replay.main import replay
from learner.replay.task import load_result
from tests.integration import mortal_learner
from tests.integration.learner_life import with_steps
from tests.integration.test_learner_restarts import train
from tests.kept_journal import flip, forge
from tests.kept_run import STEPS, make_kept_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_kept_run(tmp_path_factory.mktemp("made"))


@pytest.fixture
def run(made: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run, to be spoiled."""
    return RunFolder(Path(shutil.copytree(made.path, tmp_path / "run")))


def played(run: RunFolder, folder: Path, *settings: str, out: Path | None = None) -> ReplayOutcome:
    """As the command has it played, but in this process; each setting is a variant."""
    request = ReplayRequest(run=run.path, variants=[[setting] for setting in settings], out=out)
    place = find_journal(run.path)
    plan = plan_replay(request, place, survey(place.folder))
    folder.mkdir(exist_ok=True)
    task = task_of(plan, out, folder)
    replay(task)
    recorded = read_recorded(run.metrics, run.batches)
    return outcome_of(plan, recorded, load_result(Path(task.result)))


def token_of(run: RunFolder, step: int) -> tuple[Place, int]:
    """A trajectory of a step that something is learnt from, and where its last token is."""
    places = [place for segment in survey(run.journal).segments for place in segment.places]
    accepted = [(place, change.trajectory) for place in places
                if isinstance(change := read_change(place), Accepted)
                and change.trajectory.oldest_version == step - 1]  # fmt: skip
    rewards = {
        group: {t.total_reward for _, t in accepted if t.group_id == group}
        for group in {t.group_id for _, t in accepted}
    }
    place, trajectory = next(one for one in accepted if len(rewards[one[1].group_id]) > 1)
    tokens = trajectory.segments[0].token_ids.tobytes()
    with place.segment.open("rb") as file:
        file.seek(place.offset + RECORD_HEADER_BYTES)
        return place, file.read(place.num_bytes).index(tokens) + len(tokens) - 4


def refusal(capsys: pytest.CaptureFixture[str], run: RunFolder, *options: str) -> str:
    capsys.readouterr()
    assert main(["replay", str(run.path), *options]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    return told.err


def test_a_run_is_trained_again_to_the_last_bit(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command, with processes of its own, on a run whose task files are gone."""
    capsys.readouterr()

    assert main(["replay", str(run.path)]) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert first == f"identical: steps 1-{STEPS} of {run.path}, from the initial weights"
    assert second.startswith("compared: ")
    assert "tensors of weights and optimizer, bit by bit, after step 2, 4, 5; " in second
    assert second.endswith("metrics of 5 of 5 steps; order of trajectories of 5 of 5 steps")


def test_one_changed_byte_names_step_and_number_and_other_settings_stand_beside(
    run: RunFolder, tmp_path: Path
) -> None:
    """The checksum is made right, so that the records are those of another run."""
    place, at = token_of(run, step=3)
    forge(place, at)

    found = played(run, tmp_path / "task", "objective.name=gspo", "objective.loss_norm=tokens",
                   out=tmp_path / "out")  # fmt: skip

    assert not found.is_identical
    assert {one.step for one in found.differences} >= {3, 4}
    assert {one.step for one in found.differences}.isdisjoint({1, 2})
    assert {"loss", "grad_norm", "k3"} <= {o.what for o in found.differences if o.step == 3}
    assert any(o.what.startswith("tensor model.") for o in found.differences if o.step == 4)
    assert found.compared.weights[0][0] == 2

    own, gspo, same = found.variants
    assert own.trial.weights.differing == same.trial.weights.differing == ()
    assert gspo.trial.weights.differing
    assert gspo.measures["loss, mean"] != own.measures["loss, mean"] == same.measures["loss, mean"]
    assert gspo.measures["clipped tokens"] > own.measures["clipped tokens"] == 0
    assert gspo.measures["final log-probability"] != own.measures["final log-probability"] < 0
    assert gspo.measures["its mean |difference|"] > same.measures["its mean |difference|"] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "as-it-was", "variant-1", "variant-2",
    ]  # fmt: skip
    weights = [(tmp_path / "out" / name / "hf" / "model.safetensors").read_bytes()
               for name in ("as-it-was", "variant-1", "variant-2")]  # fmt: skip
    assert weights[0] == weights[2] != weights[1]
    lines = (tmp_path / "out/variant-1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))


def test_a_piece_with_its_checkpoint_is_played_and_the_metrics_alone_compared(
    run: RunFolder, tmp_path: Path
) -> None:
    piece = RunFolder(tmp_path / "piece")
    assert main(["journal", "cut", str(run.path), "--steps", "4", "--out", str(piece.path)]) == 0
    name = checkpoint_name(2)
    shutil.copytree(run.checkpoints / name, piece.checkpoints / name)

    found = played(piece, tmp_path / "task")

    assert found.is_identical
    assert (found.start, str(found.steps)) == (f"checkpoint {name}", "3-4")
    assert (found.compared.metrics, found.compared.batches, found.compared.weights) == (2, 2, ())


def test_a_damaged_journal_is_a_difference_that_is_named(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    place, at = token_of(run, step=3)
    flip(place.segment, place.offset + RECORD_HEADER_BYTES + at)
    capsys.readouterr()

    assert main(["replay", str(run.path)]) == 1
    told = capsys.readouterr().out
    assert main(["replay", str(run.path), "--expect-different", "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)

    assert told.startswith(f"different: the journal '{run.journal}' is not as it was written: ")
    assert f"'{place.segment}' offset {place.offset}: a record of" in told
    assert told.rstrip().endswith("--steps 1-2")
    assert (as_json["identical"], bool(as_json["damage"])) == (False, True)


def test_what_cannot_be_played_is_one_line(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*options: str) -> str:
        return refusal(capsys, run, *options)

    assert "cannot be played: the last step that it holds is 5; steps that" in told("--steps", "9")
    assert "give --steps 3-5" in told("--steps", "4-5", "--set", "objective.entropy=1")
    assert "--set learner.groups: a replay may change only" in told("--set", "learner.groups=1")
    assert f"--out {tmp_path} exists" in told("--out", str(tmp_path))
    assert "holds no critic" in told(
        "--steps", "3", "--set", "objective.advantage=gae", "objective.name=token_tis"
    )
    assert "which is not there; put it back, or say with --model" in told("--model", "nowhere")
    with (run.path / ".lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "is still on; wait for its end" in told()
    for path in (run.metrics, run.batches):
        path.unlink()
    shutil.rmtree(run.checkpoints / checkpoint_name(5))
    assert "there is nothing to compare steps 5 with" in told("--steps", "5")
    for path in segment_files(run.journal)[:-1]:
        path.unlink()
    assert "because what no kept checkpoint needs is removed" in told()
    run.config.unlink()
    assert "config.json of the run beside its journal" in told()


@pytest.mark.nightly
def test_a_checkpoint_that_is_damaged_is_named_by_the_command(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    state = run.checkpoints / checkpoint_name(4) / "state" / "rank-00000.safetensors"
    flip(state, state.stat().st_size - 1)
    capsys.readouterr()

    assert main(["replay", str(run.path), "--steps", "5"]) == 2

    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"lzero: checkpoint '{state.parents[1]}' is damaged: state/rank-00000")


@pytest.mark.nightly
@pytest.mark.distributed
def test_another_number_of_ranks_compares_what_is_counted(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    assert main(["replay", str(run.path), "--ranks", "2", "--steps", "3-5"]) == 0

    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("identical: steps 3-5")
    assert second.startswith("with 2 ranks, and the run had 1: sums are added up in another order")
    assert third == "compared: counters of 3 of 3 steps; order of trajectories of 3 of 3 steps"


def as_json_of(capsys: pytest.CaptureFixture[str], *arguments: str, status: int) -> Any:
    capsys.readouterr()
    assert main(["replay", *arguments, "--json"]) == status
    return json.loads(capsys.readouterr().out)


@pytest.mark.nightly
@pytest.mark.distributed
def test_two_ranks_that_were_killed_are_trained_again_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The journal is that of three lives, and only the last checkpoint is left."""
    monkeypatch.setattr("common.restarts.FIRST_S", 0.05)
    train(tmp_path, ("publish", 2, "other"), ("saved", 3, "self"), ranks=2)
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "model" / "tokenizer.json"))
    config = with_steps(mortal_learner.STEPS)
    config = replace(
        config,
        run=replace(config.run, keep_journal=True),
        model=replace(config.model, path=str(tmp_path / "model"), dtype="float32"),
        learner=replace(config.learner, ranks=2),
    )
    save_config(config, RunFolder(tmp_path).config)
    capsys.readouterr()

    assert main(["replay", str(tmp_path)]) == 0

    first, second = capsys.readouterr().out.splitlines()
    assert first == f"identical: steps 1-7 of {tmp_path}, from the initial weights"
    assert "tensors of weights and optimizer, bit by bit, after step 7; order of" in second


@pytest.mark.nightly
def test_variants_of_one_call_are_compared_as_json(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--set", "objective.name=gspo", "learner.learning_rate=0.02",
               "--set", "objective.advantage=gae", "objective.name=token_tis"]  # fmt: skip

    told = as_json_of(capsys, str(run.path), *options, status=1)
    again = as_json_of(capsys, str(run.path), *options, "--expect-different", status=0)

    assert told["differences"] == []
    assert [one["label"] for one in told["settings"]] == ["as it was", "variant 1", "variant 2"]
    assert all(len(one["steps"]) == STEPS for one in told["settings"])
    assert again == told
