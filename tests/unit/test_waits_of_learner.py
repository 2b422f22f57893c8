"""Each wait of the learner is provoked, and read where ``lzero why`` reads it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from torch import nn

from common.config import Config
from common.places import Address, ServerPlace
from common.run_status import RunStatus, read_status, write_status
from common.waits.catalogue import Part, WaitKind
from common.waits.graph import Chain, why
from common.waits.records import Node, Waiting, WaitReport
from common.waits.sentences import describe_chain
from common.wire.records import Task
from common.wire.session import Heartbeat, HeartbeatAck, Leave
from learner.checkpoints.schedule import SaveSchedule
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.coordination.intake import Intake
from learner.coordination.membership import Membership
from learner.engine.mesh import training_processes
from learner.journal.format import Record
from learner.journal.interface import NoJournal
from learner.loop import TrainingLoop
from learner.saving import Saving
from learner.status import StatusWriter
from learner.totals import Totals
from learner.weights.background import BackgroundPublisher
from learner.weights.channel import StagingChannel
from tests.asked_servers import asked
from tests.coordination import TASK, Peer, a_peer, an_intake, answer, hello
from tests.unit.test_weight_publisher import publishing, publishing_place, state
from tests.wait_sentences import found, said
from tests.waiting import wait_for
from tests.weight_server import weight_servers
from tests.wires import a_place

S0 = ServerPlace(name="s0", address=Address(bind="/s0"))
LEARNER = Node(Part.LEARNER)


class Watched:
    """A status writer whose looks are asked for."""

    def __init__(self, intake: Intake, membership: Membership, folder: Path) -> None:
        self.writer = StatusWriter(
            folder / "status.json", intake, membership, steps=50, heartbeat_s=60.0
        )
        self.folder = folder

    def status(self) -> RunStatus:
        """As ``lzero status`` reads it."""
        write_status(self.writer.look(), self.folder / "status.json")
        status = read_status(self.folder / "status.json")
        assert status is not None
        return status

    def chain(self) -> tuple[Chain, str]:
        status = self.status()
        graph = status.graph(now=status.written_at)
        chain = why(graph, LEARNER)
        return chain, describe_chain(chain, graph)

    def says(self, root: Part) -> str:
        """The sentence, once its root is such a part; without seconds."""
        wait_for(lambda: self.chain()[0].root.part is root, timeout_s=60)
        return self.chain()[1]


@contextmanager
def in_a_thread(work: Callable[[], object], end: Callable[[], None]) -> Iterator[None]:
    """The training loop waits elsewhere, until the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            yield
        finally:
            end()
            future.result(60)


@contextmanager
def taking(intake: Intake) -> Iterator[None]:
    over = threading.Event()

    def take() -> None:
        assert intake.take_batch(learner_version=0, timeout_s=600, give_up=over.is_set) is None

    with in_a_thread(take, over.set):
        yield


def test_a_batch_waits_for_an_actor_a_server_and_the_leases_of_its_oldest_group(
    tmp_path: Path,
) -> None:
    membership = Membership([S0])
    with (
        a_place(["a0"]) as place,
        an_intake(place, tmp_path, membership=membership) as intake,
        taking(intake),
    ):
        watched = Watched(intake, membership, tmp_path)
        assert watched.says(Part.PERSON).endswith(
            "for batch 1: there is no actor (lzero join RUN/join.json --role actor brings one in)"
        )
        (wait,) = [w for w in watched.status().waits if w.kind is WaitKind.NO_ACTOR]
        assert wait.who == Node(Part.BATCH, "1")

        with a_peer(place) as peer:
            peer.say(hello())
            peer.hear()
            assert watched.says(Part.SERVER).endswith(
                "for batch 1: none of the policy servers may be asked; policy server s0, which "
                "is joining: it has not taken weights yet"
            )
            kinds = {w.kind for w in watched.status().waits}
            assert {WaitKind.NO_SERVER, WaitKind.UNASKED_SERVER} < kinds

            with membership.roster() as roster:
                life = roster.server("s0").life
                roster.updated("s0", life, 0)
                roster.published(0)
                roster.proved("s0", life, 0)
            for _ in range(3):
                peer.hear()  # a rotation and two leases
            assert watched.says(Part.ACTOR).endswith(
                "for batch 1, which lacks group g000000 (0 of 1 groups ready): lease "
                "g000000-0-1 at actor a0"
            ) or watched.says(Part.ACTOR).endswith("lease g000000-1-1 at actor a0")
            kinds = {w.kind for w in watched.status().waits}
            assert {WaitKind.BATCH, WaitKind.LACKED_GROUP} < kinds
            assert {WaitKind.LACKED_LEASE, WaitKind.HELD_LEASE} < kinds

            both = ("g000000-0-1", "g000000-1-1")
            peer.say(Heartbeat(seen=2, leases=both, rotation=1, report=generating(*both)))
            assert isinstance(peer.hear(), HeartbeatAck)
            assert watched.says(Part.SERVER).endswith(
                "lease g000000-1-1 at actor a0, which waits 39 s for policy server s0"
            )


def generating(*leases: str) -> WaitReport:
    """Each lease waits a second longer than the one before; strangers are not believed."""
    s0 = Node(Part.SERVER, "s0")
    waits = [
        Waiting(kind=WaitKind.GENERATION, who=Node(Part.LEASE, name), on=s0, seconds=38.0 + number)
        for number, name in enumerate((*leases, "g000009-0-1"))
    ]
    forged = Waiting(kind=WaitKind.GENERATION, who=LEARNER, on=s0, seconds=1e6)
    return WaitReport(waits=(*waits, forged))


def coordinator(**settings: object) -> Coordinator:
    given = {
        "groups_per_batch": 1, "group_size": 2, "max_staleness": 0, "total_batches": 50,
        "max_buffered_bytes": 1 << 30, **settings,
    }  # fmt: skip
    return Coordinator(TaskOrder([TASK], seed=0), **given)  # type: ignore[arg-type]


def test_a_group_waits_for_actors_that_can_hold_more_and_says_what_keeps_it() -> None:
    batch = Node(Part.BATCH, "1")
    books = coordinator(group_size=3)
    books.join(hello())
    assert len(books.hand_out()) == 2, "it can hold two"
    for lease_id in books.held_by("a0#s"):
        books.withdraw("a0#s", lease_id, "malformed", "x")
    (wait,) = [w for w in books.outstanding(batch, 1.0) if w.kind is WaitKind.HAND_OUT]
    assert (wait.who, wait.on.part) == (Node(Part.GROUP, "g000000"), Part.BOUND)
    assert wait.detail == "capacity 0 at depth 0, version 0 is acknowledged by the servers"

    full = coordinator(max_buffered_bytes=-1)
    full.join(hello())
    assert full.hand_out() == []
    (wait,) = full.outstanding(batch, 1.0)
    assert wait.kind is WaitKind.NO_ROOM
    assert wait.detail == "trajectories take all the room they may (transport.buffer_mib)"


def test_leases_of_before_a_restart_wait_to_be_claimed() -> None:
    first = coordinator()
    first.join(hello())
    handed = first.hand_out()
    again = coordinator()
    again.groups.open_groups.update(first.groups.open_groups)
    again.begin(100.0)

    waits = again.outstanding(Node(Part.BATCH, "1"), 101.0)
    claims = [w for w in waits if w.kind is WaitKind.UNCLAIMED_LEASE]
    assert {w.on for w in claims} == {Node(Part.ACTOR, "a0")}
    assert len(claims) == len(handed)


def test_an_evaluation_waits_for_its_leases(tmp_path: Path) -> None:
    membership, over = asked([S0]), threading.Event()
    with a_place(["a0"]) as place, an_intake(place, tmp_path, membership=membership) as intake:
        tasks = [Task(task_id=f"h{number}", question="?", answers=("a",)) for number in range(2)]
        intake.begin_evaluation(tasks, temperature=1.0, version=0, pinned=True)

        def finish() -> None:
            assert intake.finish_evaluation(timeout_s=600, give_up=over.is_set) is None

        with in_a_thread(finish, over.set), a_peer(place) as peer:
            peer.say(hello())
            watched = Watched(intake, membership, tmp_path)
            sentence = watched.says(Part.ACTOR)
            assert WaitKind.EVALUATION in {w.kind for w in watched.status().waits}
    assert "for the held-out evaluation: lease " in sentence
    assert sentence.endswith(" at actor a0")


class StickyDisk(NoJournal):
    """Has what it takes at once, until it sticks."""

    def __init__(self) -> None:
        super().__init__()
        self.appended, self.stuck_at = 0, 1 << 60

    @property
    def durable(self) -> int:  # type: ignore[override]
        return min(self.appended, self.stuck_at)

    def append(self, record: Record) -> int:
        self.appended += 1
        return self.appended


def test_a_batch_that_is_there_waits_for_the_disk_of_the_journal(tmp_path: Path) -> None:
    disk = StickyDisk()

    def let_go() -> None:
        disk.stuck_at = 1 << 60
        intake._on_durable()

    def take() -> None:
        assert intake.take_batch(learner_version=0, timeout_s=600) is not None

    with (
        a_place(["a0"]) as place,
        an_intake(place, tmp_path, journal=disk) as intake,
        a_peer(place) as peer,
    ):
        leases = peer.joined()
        with in_a_thread(take, let_go):
            disk.stuck_at = disk.appended
            peer.say(*map(answer, leases))
            assert said(WaitKind.JOURNAL, "learner") == (
                "learner waits for the disk to take the batch into the journal"
            )


class Step:
    """Computes until it is told to end."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def run(self, batch: object, version: int) -> None:
        assert self.let_go.wait(60)


def test_a_step_is_said_while_the_ranks_compute_it() -> None:
    step, config = Step(), Config()
    saving = Saving(saver=Disk(), schedule=None)
    loop = TrainingLoop(
        config, model=nn.Linear(1, 1), vocabulary=1, train_step=step,  # type: ignore[arg-type]
        verifier=None, saving=saving, head=None, first_step=0, totals=Totals(),  # type: ignore[arg-type]
    )  # fmt: skip
    loop._first_live_step = 9  # it is one of the journal: nothing is published after it
    with training_processes(), in_a_thread(partial(loop._step, 6), step.let_go.set):
        assert said(WaitKind.STEP, "learner") == (
            "learner waits for the learner's ranks to compute step 7"
        )


class Disk:
    """A save that ends when it is told to."""

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def save(self, progress: object) -> None:
        pass

    def is_busy(self) -> bool:
        return True

    def finish(self) -> None:
        assert self.let_go.wait(60)


def test_a_save_waits_for_the_disk() -> None:
    disk = Disk()
    learner = Saving(saver=disk, schedule=SaveSchedule(steps=2, minutes=0, now=0))
    with in_a_thread(learner.settle, disk.let_go.set):
        assert said(WaitKind.CHECKPOINT, "learner") == (
            "learner waits for the disk to take the checkpoint under way"
        )


def test_the_end_of_a_run_waits_for_its_actors(tmp_path: Path) -> None:
    with a_place(["a0"]) as place, an_intake(place, tmp_path) as intake, a_peer(place) as peer:
        peer.joined()

        def drain() -> None:
            intake.drain("the run is over", timeout_s=600)

        with in_a_thread(drain, lambda: leave(peer)):
            assert said(WaitKind.FAREWELL, "learner") == (
                "learner waits for the actors to finish and leave: 1 actor: a0"
            )


def leave(peer: Peer) -> None:
    peer.say(Leave(reason="done"))


def test_a_publish_waits_for_the_server_that_loads_and_the_learner_for_the_publish(
    tmp_path: Path,
) -> None:
    with (
        weight_servers(1) as servers,
        publishing(servers, deadline_s=60) as publisher,
        a_place(["a0"]) as place,
        an_intake(place, tmp_path) as intake,
        BackgroundPublisher(publisher, acknowledge=lambda version: None) as background,
    ):
        background.submit(0, state(0))
        background.wait()
        servers[0].hanging = {"swap"}
        background.submit(1, state(1))
        with in_a_thread(background.wait, servers[0].let_go.set):
            assert servers[0].hung.wait(60)
            loading = said(WaitKind.LOADING, "policy server s0")
            said(WaitKind.EARLIER_PUBLISH)
            watched = Watched(intake, publisher.membership, tmp_path)
            sentence = watched.says(Part.SERVER)
    assert loading == "policy server s0 waits for vLLM of s0 to load version 1"
    assert sentence.startswith("learner waits ")
    assert "for the publish of version 1, which waits" in sentence
    assert "for policy server s0 to answer Swap" in sentence


def test_a_server_that_answers_nothing_is_a_root_by_itself(tmp_path: Path) -> None:
    with (
        weight_servers(1) as servers,
        publishing(servers, deadline_s=60, watch_every_s=0.02) as publisher,
        a_place(["a0"]) as place,
        an_intake(place, tmp_path) as intake,
    ):
        publisher.publish(0, state(0))
        servers[0].hanging = {"state"}
        assert servers[0].hung.wait(60)
        wait_for(lambda: silent_for(3.0), timeout_s=60)
        status = Watched(intake, publisher.membership, tmp_path).status()
        servers[0].hanging = set()
        servers[0].let_go.set()
    (quiet,) = status.silent
    assert (quiet.node, quiet.words) == (Node(Part.SERVER, "s0"), "has not answered")
    assert quiet.seconds > 3


def silent_for(seconds: float) -> bool:
    wait = found(WaitKind.ORDER, lambda wait: wait.detail == "AskState")
    return wait is not None and wait.seconds > seconds


def test_a_publish_waits_for_a_host_to_fetch_weights() -> None:
    with weight_servers(1) as servers, publishing_place(servers) as place:
        channel = StagingChannel(place.door)
        channel.start()
        channel.expect("s0", 1)

        def wait() -> None:
            channel.wait_staged("s0", workers=1, version=3, timeout_s=600)

        def fail() -> None:
            channel._fault = "it is over"
            with channel._changed:
                channel._changed.notify_all()

        try:
            with ThreadPoolExecutor(1) as pool:
                future = pool.submit(wait)
                sentence = said(WaitKind.STAGED, "publish of version 3")
                fail()
                assert "it is over" in str(future.exception(60))
        finally:
            channel.stop()
    assert sentence == "publish of version 3 waits for policy server s0 to fetch the weights"


def test_a_publish_waits_for_a_server_to_come_back() -> None:
    with weight_servers(1) as servers, publishing(servers, return_s=600) as publisher:
        publisher.publish(0, state(0))
        servers[0].kill()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(publisher.publish, 1, state(1))
            try:
                assert said(WaitKind.SERVER_BACK) == (
                    "publish of version 1 waits for one of the policy servers to come back"
                )
            finally:
                publisher._stopping.set()
            assert future.exception(60) is not None
            servers[0].start()
