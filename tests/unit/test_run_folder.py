"""A run folder is never overwritten, and only an unfinished run goes on."""

import io
import os
import resource
import time
from pathlib import Path

import pytest
from rich.console import Console

from common.config import Config
from common.errors import InputError
from launch.cli import main
from launch.evaluate.checkpoint import locate_checkpoint
from launch.models.export import find_checkpoint
from launch.run import fine_tune
from launch.run.folder import (
    PhaseClock,
    RunFolder,
    RunState,
    Status,
    check_fresh,
    check_resumable,
    locked,
    set_aside,
)
from launch.run.train import TrainRequest, _TrainRun, how_to_go_on
from learner.sft.config import Sft
from tests.listeners import as_root


def run_with(folder: Path, status: Status) -> RunFolder:
    run = RunFolder(folder / "trial")
    run.path.mkdir()
    run.write_state(RunState(status=status, started_at=0.0, seconds={"learn": 3.0, "total": 5.0}))
    return run


def test_a_missing_or_empty_folder_is_fresh(tmp_path: Path) -> None:
    check_fresh(RunFolder(tmp_path / "new"))
    check_fresh(RunFolder(tmp_path))


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"already finished and is not overwritten.*--name"):
        check_fresh(run_with(tmp_path, "finished"))


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_an_unfinished_run_suggests_resume(tmp_path: Path, status: Status) -> None:
    with pytest.raises(InputError, match=r"begun and not finished.*--resume"):
        check_fresh(run_with(tmp_path, status))


def test_an_earlier_run_is_set_aside_under_the_first_free_name(tmp_path: Path) -> None:
    assert set_aside(RunFolder(tmp_path / "trial")) is None
    (tmp_path / "trial-1").mkdir()
    run = run_with(tmp_path, "finished")

    kept = set_aside(run)

    assert kept == tmp_path / "trial-2"
    assert RunFolder(kept).read_state() is not None
    check_fresh(run)


def test_a_run_at_work_is_not_set_aside(tmp_path: Path) -> None:
    run = run_with(tmp_path, "running")

    with locked(run), pytest.raises(InputError, match=r"another lzero command"):
        set_aside(run)

    assert run.path.exists()


def test_what_was_prepared_for_a_run_is_nothing_other(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.prepared.mkdir()

    check_fresh(run)

    (tmp_path / "letters.txt").touch()
    with pytest.raises(InputError, match=r"holds no run of ours"):
        check_fresh(run)


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").touch()

    with pytest.raises(InputError, match=r"holds no run of ours"):
        check_fresh(RunFolder(tmp_path))


def test_only_an_unfinished_run_resumes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run"):
        check_resumable(RunFolder(tmp_path / "nowhere"))
    run = run_with(tmp_path, "failed")

    assert check_resumable(run).seconds["learn"] == 3.0

    run.write_state(RunState(status="finished", started_at=0.0))
    with pytest.raises(InputError, match=r"already finished; to train further, begin a new run"):
        check_resumable(run)


@pytest.mark.parametrize("text", ["", "[1]", "null", '{"status": "failed", "later": 1}'])
def test_a_state_that_is_none_of_ours_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)

    with pytest.raises(InputError, match=r"state.json is no state of a run that this version"):
        check_fresh(RunFolder(tmp_path))


def test_two_commands_never_work_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "trial")

    with locked(run), pytest.raises(InputError, match=r"another lzero command"), locked(run):
        pass

    check_fresh(run)


def test_the_last_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.last_checkpoint() is None
    for name in ("step-000002", "step-000010", "step-000011.partial", "other"):
        (run.checkpoints / name).mkdir(parents=True)

    found = run.last_checkpoint()

    assert found is not None
    assert found.name == "step-000010"


def test_phases_add_up_over_attempts_even_when_one_raises() -> None:
    clock = PhaseClock({"learn": 3.0, "total": 5.0})
    started = time.monotonic()

    with pytest.raises(KeyError), clock.phase("learn"):
        raise KeyError
    spent = time.monotonic() - started

    assert 3.0 < clock.total()["learn"] <= 3.0 + spent
    assert clock.total()["total"] > 5.0


def test_a_run_folder_is_its_owners_alone(tmp_path: Path) -> None:
    new, begun = RunFolder(tmp_path / "runs" / "new"), run_with(tmp_path, "failed")
    begun.path.chmod(0o750)

    with locked(new), locked(begun):
        assert new.path.stat().st_mode & 0o777 == 0o700
        assert begun.path.stat().st_mode & 0o777 == 0o750, "its owner opened it"


def test_a_run_without_a_checkpoint_is_not_called_a_model(tmp_path: Path) -> None:
    run = run_with(tmp_path, "interrupted")
    run.config.write_text("{}")

    with pytest.raises(InputError, match=r"holds no finished checkpoint"):
        find_checkpoint(run.path)


def test_a_file_given_as_a_checkpoint_is_not_called_missing(tmp_path: Path) -> None:
    (tmp_path / "model.toml").touch()

    with pytest.raises(InputError, match=r"model.toml is not a folder"):
        locate_checkpoint(tmp_path / "model.toml")


@as_root
def test_a_folder_that_another_user_made_is_refused(tmp_path: Path) -> None:
    """Its owner reads it whatever its mode, and whoever owns a link lets it point elsewhere."""
    (tmp_path / "made").mkdir()
    os.chown(tmp_path / "made", 65534, 65534)
    (tmp_path / "ours").mkdir()
    (tmp_path / "link").symlink_to("ours")
    os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)

    for name in ("made", "link"):
        with (
            pytest.raises(InputError, match=rf"{name} belongs to another user.*--name"),
            locked(RunFolder(tmp_path / name)),
        ):
            pass
        assert list((tmp_path / name).iterdir()) == []


@pytest.mark.parametrize("trap", ["link", "hard link", "pipe"])
def test_a_lock_that_somebody_put_there_changes_no_file(tmp_path: Path, trap: str) -> None:
    run, precious = RunFolder(tmp_path / "trial"), tmp_path / "precious"
    precious.write_text("kept")
    run.path.mkdir()
    lock = run.path / ".lock"
    if trap == "link":
        lock.symlink_to(precious)
        with pytest.raises(InputError, match=r"\.lock cannot be opened.*remove it"), locked(run):
            pass
    else:
        lock.hardlink_to(precious) if trap == "hard link" else os.mkfifo(lock)
        with locked(run):
            pass

    assert precious.read_text() == "kept"


def test_nobody_else_writes_to_folders_that_are_made_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, before = RunFolder(tmp_path / "runs" / "mine" / "trial"), os.umask(0)
    try:
        with locked(run):
            assert run.path.parent.stat().st_mode & 0o777 == 0o755
            assert run.path.parent.parent.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)
    assert not caplog.messages


def test_nothing_that_a_command_makes_is_everybodys_to_change(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert main(["config"]) == 0
        (tmp_path / "made").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o664


def test_a_place_where_everybody_may_rename_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mode in (("open", 0o777), ("sticky", 0o1777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
        with locked(RunFolder(tmp_path / name / "runs" / "trial")):
            pass

    (warning,) = caplog.messages
    assert f"in {tmp_path / 'open'} everybody may rename the run folder" in warning
    assert "chmod o-w" in warning


def test_only_a_checkpoint_that_exists_is_promised(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    request = TrainRequest(config=Path("x.toml"), name="trial")

    assert how_to_go_on(run, request) == (
        "no checkpoint was written yet; training starts at its first step again, with what its "
        "journal and the phases before it kept, with: lzero train x.toml --name trial --resume"
    )
    (run.checkpoints / "step-000002").mkdir(parents=True)
    assert how_to_go_on(run, request) == (
        "checkpoint step-000002 is kept; go on with: lzero train x.toml --name trial --resume"
    )


def test_fine_tuning_promises_no_checkpoint_that_does_not_exist(tmp_path: Path) -> None:
    config = Sft(model="m", traces="t", output=str(tmp_path / "out"), checkpoint_every=5)

    assert fine_tune.how_to_go_on(config) == ""
    (config.checkpoint_folder / "step-000005").mkdir(parents=True)
    assert "--resume" in fine_tune.how_to_go_on(config)


@pytest.mark.parametrize("place", ["/proc/x", "/etc/passwd", "/dev/null/x"])
def test_a_place_where_no_folder_can_be_is_named(place: str) -> None:
    run = RunFolder(Path(place) / "trial")
    check_fresh(run)

    with (
        pytest.raises(InputError, match=rf"{place}/trial cannot be made.*set run.folder"),
        locked(run),
    ):
        pass


@pytest.mark.parametrize("seed", ["-1", str(2**31 - 1), "1" + 20 * "0"])
def test_a_world_that_no_training_can_name_is_refused(
    seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(tmp_path), "--world-seed", seed]) == 2

    said = capsys.readouterr().err
    assert said.startswith("lzero: --world-seed must be at ")
    assert f"got {seed} (seed, at least 0 and at most 2147483646)" in said


def test_a_disk_without_room_does_not_end_a_run_when_a_process_is_started_again(
    tmp_path: Path,
) -> None:
    run, printed = run_with(tmp_path, "running"), io.StringIO()
    request = TrainRequest(config=Path("x.toml"), name="trial")
    training = _TrainRun(request, Config(), (), run, None, Console(file=printed, width=200))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        training._note_restart("learner was killed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert "learner was killed" in printed.getvalue()
    assert "the state of the run cannot be written: " in printed.getvalue()
    training._note_restart("actor was killed")
    state = run.read_state()
    assert state is not None
    assert state.restarts == ["learner was killed", "actor was killed"]
