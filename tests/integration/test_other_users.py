"""Another user of the machine can neither enter, read nor reach anything of a run."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.inference.host.serving import HOST_LIMITS
from common.config import Config, Learner
from common.config_file import save_config
from common.places import LEARNER, RunPlan
from common.plan_file import own_keys
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles
from launch.run.folder import RunFolder, RunState, locked
from launch.starters.private import make_plan, private_folder
from tests.listeners import as_nobody, as_root, attempts_on, listening
from tests.wires import ACTOR_LIMITS, WORKER_LIMITS

pytestmark = as_root


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody can enter and read (pytest's are for their owner alone)."""
    with tempfile.TemporaryDirectory(prefix="for-everybody-") as name:
        Path(name).chmod(0o755)
        (Path(name) / "readable").write_text("x")
        yield Path(name)


@pytest.fixture
def run(place: Path) -> Iterator[RunFolder]:
    """A run folder as ``lzero train`` makes it, under a umask that hides nothing."""
    folder, before = RunFolder(place / "run"), os.umask(0)
    try:
        with locked(folder):
            folder.write_state(RunState(status="running", started_at=0.0))
            save_config(Config(), folder.config)
            yield folder
    finally:
        os.umask(before)


@pytest.fixture
def plan(run: RunFolder) -> Iterator[RunPlan]:
    """Everything of a plan that listens, listening."""
    with private_folder(run.path) as private:
        config = Config(learner=Learner(ranks=2))
        plan = make_plan(config, RunFiles(config=run.config, private=private))
        with Wire(own_keys(plan, LEARNER)) as wire:
            doors = [
                wire.listen("policy server", plan.servers[0].address, {}, HOST_LIMITS),
                wire.listen("coordinator", plan.coordinator, {}, ACTOR_LIMITS),
                wire.listen("weights", plan.weights, {}, WORKER_LIMITS),
            ]
            yield plan
            for door in doors:
                door.close()


def test_nobody_else_enters_reads_or_connects(run: RunFolder, plan: RunPlan, place: Path) -> None:
    private = Path(plan.private)
    attempts = attempts_on(private) + attempts_on(run.path)
    paths = [path.name for _, path in attempts]

    assert {"plan.json", "learner.key", "a0.key", "s0.key", "config.json"} <= set(paths)
    assert [what for what, _ in attempts].count("connect") == 3
    assert as_nobody([("enter", place), ("read", place / "readable")]) == ["done", "done"]
    assert set(as_nobody(attempts)) == {"PermissionError"}


def test_everything_that_listens_is_in_the_private_folder(plan: RunPlan) -> None:
    private = Path(plan.private)
    ours = {where for _, where in listening([os.getpid()])}

    assert {str(private / name) for name in ("coordinator", "weights", "s0")} <= ours
    assert private.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in private.glob("*.key")} == {0o600}


def test_a_run_folder_that_was_there_before_is_closed(place: Path) -> None:
    folder = RunFolder(place / "run")
    folder.path.mkdir(mode=0o755)

    with locked(folder):
        assert as_nobody([("list", folder.path)]) == ["PermissionError"]
