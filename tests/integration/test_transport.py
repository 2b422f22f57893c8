"""Trajectories of real actor processes reach the learner exactly once, over real ZeroMQ."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from common.errors import LZeroError
from common.plan_file import keys_file
from common.telemetry.process_totals import add_actor_totals, read_actor_totals
from common.wire.keys import write_key_pair
from common.wire.records import Task
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore
from tests.waiting import wait_for
from tests.wires import Place, a_place

REPOSITORY = Path(__file__).resolve().parents[2]
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(5)]

StartActor = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Where the coordinator listens, with the keys of its actors in files."""
    with a_place(["a0", "a1"], tcp=getattr(request, "param", "unix") == "tcp") as place:
        for name, keys in place.keys.items():
            write_key_pair(keys_file(tmp_path, name), keys)
        yield place


@pytest.fixture
def coordinator(request: pytest.FixtureRequest) -> Coordinator:
    """Its parameter: seconds after which an actor has been silent for too long."""
    return Coordinator(
        TaskOrder(TASKS, seed=0),
        groups_per_batch=2,
        group_size=4,
        max_staleness=2,
        total_batches=50,
        max_buffered_bytes=1 << 30,
        silence_s=getattr(request, "param", 30.0),
    )


@pytest.fixture
def intake(tmp_path: Path, place: Place, coordinator: Coordinator) -> Iterator[Intake]:
    store = TrajectoryStore(tmp_path / "trajectories", limit_bytes=1 << 20)
    add_totals = partial(add_actor_totals, folder=tmp_path / "actors")
    with Intake(coordinator, store, place.door, add_totals=add_totals) as running:
        yield running


@pytest.fixture
def start_actor(tmp_path: Path, place: Place, intake: Intake) -> Iterator[StartActor]:
    address = json.dumps(dataclasses.asdict(place.door.address))
    started: list[subprocess.Popen[bytes]] = []

    def start(actor_id: str, behaviour: str = "once") -> subprocess.Popen[bytes]:
        child = Path(__file__).with_name("link_child.py")
        keys = str(keys_file(tmp_path, actor_id))
        command = [sys.executable, str(child), address, keys, actor_id, behaviour]
        started.append(
            subprocess.Popen(command, cwd=REPOSITORY, env={"PYTHONPATH": str(REPOSITORY)})
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("place", ["unix", "tcp"], indirect=True)
def test_batches_of_two_actors_are_complete_and_hold_no_trajectory_twice(
    coordinator: Coordinator, intake: Intake, start_actor: StartActor, tmp_path: Path
) -> None:
    actors = [start_actor("a0", "twice"), start_actor("a1")]
    wait_for(lambda: sorted(coordinator.sessions.values()) == ["a0", "a1"], timeout_s=30)
    seen: list[str] = []

    for _ in range(3):
        batch = intake.take_batch(learner_version=0, timeout_s=30)
        seen += [trajectory.trajectory_id for trajectory in batch]
    intake.drain("done", timeout_s=20)

    assert read_actor_totals(tmp_path / "actors").keys() == {"a0", "a1"}, "the drain waits for them"
    assert len(seen) == len(set(seen)) == 3 * 8
    assert [actor.wait(timeout=20) for actor in actors] == [0, 0]


@pytest.mark.parametrize("coordinator", [1.0], indirect=True)
def test_leases_of_a_killed_actor_are_run_by_another(
    intake: Intake, start_actor: StartActor
) -> None:
    hanging = start_actor("a0", "silent")
    waited_for, deadline = "", time.monotonic() + 30
    while "leases held {'a0': 4}" not in waited_for:
        assert time.monotonic() < deadline, waited_for
        with pytest.raises(LZeroError, match="waited 0 s for a batch for step 1") as caught:
            intake.take_batch(learner_version=0, timeout_s=0.1)
        waited_for = str(caught.value)

    hanging.kill()
    start_actor("a1")
    batch = intake.take_batch(learner_version=0, timeout_s=30)

    assert len(batch) == 8


@pytest.mark.parametrize("coordinator", [1.0], indirect=True)
def test_an_actor_that_stood_still_goes_on_and_loses_what_it_held_once(
    intake: Intake, start_actor: StartActor
) -> None:
    """It is silent for longer than it may be, with every lease running, and then comes back."""
    start_actor("a0", "stall")

    batch = intake.take_batch(learner_version=0, timeout_s=30)

    counters = intake.counters()
    assert len(batch) == 8
    assert set(counters.dropped) <= {"actor_silent"}
    assert counters.dropped.total() == 4, "what it held while it was silent, once"


def test_what_cannot_be_encoded_is_that_episodes_failure_and_the_actor_goes_on(
    intake: Intake, start_actor: StartActor
) -> None:
    actor = start_actor("a0", "unencodable")

    batch = intake.take_batch(learner_version=0, timeout_s=30)
    intake.drain("done", timeout_s=20)

    assert len(batch) == 8
    assert intake.counters().dropped["infrastructure:ProtocolError"] == 1
    assert actor.wait(timeout=20) == 0
