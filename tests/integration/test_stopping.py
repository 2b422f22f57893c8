"""The learner, asked to stop, saves what it has and can go on; so it does on a disk with no room.

A scripted actor answers over real ZeroMQ; checkpoints are real ones.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue

import pytest
from torch import Tensor

from actors.link import CoordinatorLink
from actors.runner import run_leases
from common.errors import PolicyServerError
from common.stopping import StopRequest
from common.wire.records import Purpose, TaskLease, Trajectory
from common.wire.sockets import Wire
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import find_damage
from learner.checkpoints.schedule import SaveSchedule
from learner.checkpoints.state import Progress
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.store import TrajectoryStore
from tests.integration.learner_life import Life, with_steps
from tests.integration.test_synchronous_training import TASKS, Servers, scripted
from tests.makers import make_totals
from tests.saved_checkpoint import latest_checkpoint
from tests.tiny_policy import make_model
from tests.wires import a_place

HELD = 3
STEPS = 5
EVALUATED = 2
"""Steps between evaluations."""


@dataclass
class Failing(Servers):
    """Policy servers that take no version from ``since`` on; ``then`` is called before they say."""

    since: int = 1 << 30
    then: Callable[[], object] = lambda: None

    def publish(self, version: int, state: Mapping[str, Tensor]) -> Servers:
        if version >= self.since:
            self.then()
            raise PolicyServerError("the policy server is gone")
        return super().publish(version, state)


@dataclass
class Moment:
    """A saver that does something at the end of a step, when all ranks have heard of no stop."""

    step: int
    then: Callable[[], object]
    saver: Checkpointer | None = None
    saved: list[int] = field(default_factory=list)

    def over(self, saver: Checkpointer) -> "Moment":
        self.saver = saver
        return self

    def save(self, progress: Progress) -> None:
        assert self.saver is not None
        self.saved.append(progress.step)
        self.saver.save(progress)

    def is_busy(self) -> bool:
        self.step -= 1
        if self.step == 0:
            self.then()
        return False

    def finish(self) -> None:
        assert self.saver is not None
        self.saver.finish()


class Asking(SaveSchedule):
    """Is asked to stop after the last step, before the ranks tell each other."""

    stop: StopRequest

    def is_due(self, step: int, now: float) -> bool:
        if step == STEPS:
            self.stop.note()
        return super().is_due(step, now)


def anything(lease: TaskLease, version: int) -> Trajectory:
    return replace(scripted(lease, version), purpose=lease.purpose)


def all_but_evaluations(lease: TaskLease, version: int) -> Trajectory | None:
    return None if lease.purpose is Purpose.EVALUATE else scripted(lease, version)


def crash() -> None:
    raise OSError("crash")


@dataclass(kw_only=True)
class Folder:
    """A run of several lives."""

    path: Path
    model: Path
    lives: list[Life] = field(default_factory=list)

    def life(self, *, evaluated: bool = False, pinned: bool = True, **given: object) -> Life:
        config = with_steps(STEPS, during_every=EVALUATED if evaluated else 0, pinned=pinned)
        life = Life(
            folder=self.path, model_folder=self.model, config=config,
            heldout=TASKS[:2] if evaluated else (), resume=bool(self.lives), play=anything,
        )  # fmt: skip
        self.lives.append(replace(life, **given))  # type: ignore[arg-type]
        return self.lives[-1]

    def checkpoint(self) -> str:
        saved = latest_checkpoint(self.path / "checkpoints")
        assert saved is not None
        assert find_damage(saved) == []
        return saved.name


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_model(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, model: Path) -> Folder:
    return Folder(path=tmp_path, model=model)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[str, ...]:
    """Digests of all versions of a run in one life."""
    life = Folder(path=tmp_path_factory.mktemp("plain"), model=model).life()
    assert life.run()
    return life.servers.digests


def test_a_learner_that_is_asked_to_stop_goes_on_where_it_stood(
    run: Folder, weights: tuple[str, ...]
) -> None:
    first = run.life()

    def asking(lease: TaskLease, version: int) -> Trajectory:
        if version == 2:
            first.stop.note()  # in the middle of a batch
        return scripted(lease, version)

    first.play = asking
    assert not first.run()

    saved = run.checkpoint()
    assert saved in ("step-000002", "step-000003")
    second = run.life()
    assert second.run()
    assert second.first_step == int(saved[-6:])
    assert second.servers.digests[-1] == weights[-1]
    counted = second.counters
    assert counted.trained == STEPS * 6
    assert counted.started == counted.trained + counted.dropped.total()
    lines = (run.path / "batches.jsonl").read_text().splitlines()
    assert len(lines) == STEPS


def test_a_stop_while_the_journal_is_played_saves_there_and_publishes_nothing(
    run: Folder, weights: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PolicyServerError):
        run.life(servers=Failing(since=3)).run()
    second = run.life()
    second.stop.note()

    assert not second.run()

    assert (second.replayed, second.servers.digests) == (3, ())
    assert run.checkpoint() == "step-000001"
    assert "actors did not leave" not in caplog.text
    third = run.life()
    assert third.run()
    assert (third.first_step, third.replayed) == (1, 2)
    assert third.servers.digests == weights[3:]
    assert third.counters.trained == STEPS * 6


def test_a_stop_before_the_first_publish_saves_and_publishes_nothing(
    run: Folder, weights: tuple[str, ...]
) -> None:
    first = run.life()
    first.stop.note()

    assert not first.run()

    assert first.servers.digests == ()
    second = run.life()
    assert second.run()
    assert second.servers.digests == weights


@pytest.mark.parametrize("is_late", [False, True])
def test_the_last_step_is_finished_whoever_asks(
    run: Folder, weights: tuple[str, ...], is_late: bool
) -> None:
    life = run.life()
    if is_late:
        life.saver_of = Moment(STEPS, life.stop.note).over
    else:
        life.schedule = Asking(steps=100, minutes=0, now=0)
        life.schedule.stop = life.stop

    assert life.run()

    assert life.stop.asked
    assert life.servers.digests == weights
    assert run.checkpoint() == f"step-{STEPS:06d}"


def test_servers_that_go_at_the_last_step_are_given_its_weights_by_who_goes_on(
    run: Folder, weights: tuple[str, ...]
) -> None:
    life = run.life()
    life.servers = Failing(since=STEPS, then=life.stop.note)

    assert not life.run()

    assert run.checkpoint() == f"step-{STEPS:06d}"
    second = run.life()
    assert second.run()
    assert second.servers.digests == weights[-1:]


def test_a_stop_leaves_the_evaluation_to_who_goes_on(run: Folder) -> None:
    first = run.life(evaluated=True, play=all_but_evaluations, every=EVALUATED + 1)
    moment = Moment(EVALUATED + 1, first.stop.note)
    first.saver_of = moment.over

    assert not first.run()

    assert moment.saved == [EVALUATED + 1]  # once, though a save was due as well
    assert run.checkpoint() == f"step-{EVALUATED + 1:06d}"
    assert first.asked == []
    second = run.life(evaluated=True)
    assert second.run()
    assert second.asked == [EVALUATED + 1, 4]
    assert [r.step for r in second.records if r.heldout] == [EVALUATED + 2, 5]


@pytest.mark.parametrize("is_crash", [True, False])
def test_who_goes_on_begins_an_evaluation_beside_training_again(
    run: Folder, is_crash: bool
) -> None:
    first = run.life(evaluated=True, pinned=False, play=all_but_evaluations, every=EVALUATED + 1)
    first.saver_of = Moment(EVALUATED + 1, crash if is_crash else first.stop.note).over
    with suppress(OSError):
        assert not first.run()

    second = run.life(evaluated=True, pinned=False)
    assert second.run()

    assert first.asked == []
    assert second.asked[0] == EVALUATED + 1


def test_an_evaluation_that_a_crash_cut_short_is_begun_again(run: Folder) -> None:
    """It was begun before the checkpoint, and the batch after it was taken."""
    first = run.life(evaluated=True, play=all_but_evaluations, every=EVALUATED)
    first.saver_of = Moment(EVALUATED + 1, crash).over
    with pytest.raises(OSError, match="crash"):
        first.run()

    second = run.life(evaluated=True)
    assert second.run()

    assert (second.first_step, second.replayed) == (EVALUATED, 1)
    assert second.asked == [EVALUATED + 1, 4]


def test_an_evaluation_that_was_over_is_not_asked_again(run: Folder) -> None:
    first = run.life(evaluated=True, servers=Failing(since=4))
    with pytest.raises(PolicyServerError):
        first.run()

    second = run.life(evaluated=True)
    assert second.run()

    assert first.asked == [EVALUATED]
    assert (second.first_step, second.replayed) == (0, 4)
    assert second.asked == [EVALUATED, 4]
    before, after = ([r.heldout for r in life.records][:3] for life in run.lives)
    assert before == after
    assert before[2]


def test_a_disk_that_takes_no_checkpoint_ends_nothing(run: Folder) -> None:
    (run.path / "checkpoints").write_text("in the way")
    told: list[str] = []

    def clear(text: str) -> None:
        told.append(text)
        (run.path / "checkpoints").unlink()

    life = run.life(every=1, tell=clear)
    assert life.run()

    (text,) = told
    assert "step-000001' could not be written, those before it are kept: " in text
    assert life.failed.count == 1
    assert run.checkpoint() == f"step-{STEPS:06d}"


class Halting:
    """Episodes of which the first ends once the drain is heard, and no other ever does."""

    def __init__(self, link: CoordinatorLink) -> None:
        self._link = link
        self._begun = 0
        self.all_begun = threading.Event()

    async def run(self, lease: TaskLease) -> Trajectory:
        self._begun += 1
        if self._begun == HELD:
            self.all_begun.set()
        while lease.sample_index or not self._link.finish_s:
            await asyncio.sleep(0.01)
        return scripted(lease, 0)


def test_a_drain_takes_what_is_finished_in_its_time_and_hands_out_again_the_rest(
    tmp_path: Path,
) -> None:
    coordinator = Coordinator(
        TaskOrder(TASKS, seed=0), groups_per_batch=1, group_size=HELD, max_staleness=0,
        total_batches=1, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    with ExitStack() as stack:
        place = stack.enter_context(a_place(["a0"]))
        store = TrajectoryStore(tmp_path, limit_bytes=1 << 24)
        intake = stack.enter_context(Intake(coordinator, store, place.door))
        wire = stack.enter_context(Wire(place.keys["a0"]))
        begun: Queue[threading.Event] = Queue()

        async def act() -> int:
            link = CoordinatorLink(
                wire, place.door.address, actor_id="a0", credit=9, kernel_level="",
                heartbeat_s=0.1, resend_s=5.0, patience_s=60.0,
            )  # fmt: skip
            runner = Halting(link)
            begun.put(runner.all_begun)
            return await run_leases(link, runner, make_totals)  # type: ignore[arg-type]

        actor = threading.Thread(target=lambda: asyncio.run(act()))
        actor.start()
        assert begun.get(timeout=10).wait(timeout=10)

        intake.drain("stop", finish_s=1.0, timeout_s=10)

        actor.join(timeout=10)
        counted = intake.counters()
        assert not coordinator.sessions
    assert (counted.started, counted.finished) == (HELD, 1)
    assert counted.dropped == {"actor_left": HELD - 1}
    (group,) = coordinator.groups.open_groups.values()
    assert sorted(group.waiting) == [1, 2]
