"""The coordinator on the network: one thread, one ROUTER socket, one lock around the pure state.

consumes   hellos, heartbeats and trajectories of the actors
produces   task leases, acks, complete batches for the training loop
waits for  a message, a wake-up by the training loop, or the next silence check
unblocked by  actors; ``take_batch`` is unblocked by the trajectory that completes a batch

Every trajectory is acknowledged once its fate is decided, also a duplicate; an actor repeats
what was not. Nothing is published and forgotten.
"""

import copy
import logging
import threading
import time
from collections.abc import Sequence
from typing import Self

import zmq

from common.codec import SCHEMA_VERSION, Record, decode, encode
from common.errors import EnvironmentFault, LZeroError, ProtocolError
from common.messages import (
    Ack,
    Drain,
    Heartbeat,
    Hello,
    Refused,
    Task,
    Trajectory,
    Welcome,
)
from learner.coordination.coordinator import Coordinator, Counters
from learner.coordination.ledger import save_ledger
from learner.coordination.store import TrajectoryStore

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 256 << 20


class Intake:
    """Runs a coordinator behind ``tcp://host:port``; a context manager."""

    def __init__(
        self,
        coordinator: Coordinator,
        store: TrajectoryStore,
        *,
        run_id: str,
        host: str,
        port: int,
        silence_s: float,
        version: int = 0,
    ) -> None:
        """Bind the port; the learner is at weight ``version``.

        Raises:
            EnvironmentFault: the port is taken.
        """
        self._coordinator = coordinator
        self._store = store
        self._run_id = run_id
        self._silence_s = silence_s
        self._last_heard: dict[str, float] = {}
        self._learner_version = version
        self._error: BaseException | None = None
        self._stopping = False
        self._draining: str | None = None
        self._drained: set[str] = set()
        self._changed = threading.Condition()
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._router.setsockopt(zmq.SNDHWM, 0)
        self._wake_out = self._context.socket(zmq.PAIR)
        self._wake_in = self._context.socket(zmq.PAIR)
        self._wake_in.bind("inproc://wake")
        self._wake_out.connect("inproc://wake")
        try:
            self._router.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise EnvironmentFault(
                f"the coordinator cannot bind {host}:{port}: {error.strerror}; "
                "set transport.port to a free port or to 0"
            ) from error
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread and close every socket."""
        with self._changed:
            self._stopping = True
            self._wake()
        self._thread.join(timeout=10)
        self._context.destroy(linger=0)
        self._store.close()

    # ---- called by the training loop ---------------------------------------------------------

    def take_batch(self, *, learner_version: int, timeout_s: float) -> list[Trajectory]:
        """The next batch, as soon as it is complete.

        Raises:
            LZeroError: none came in time; says what it was waiting for.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._learner_version = learner_version
            while True:
                self._check()
                batch = self._coordinator.take_batch(learner_version=learner_version)
                if batch is not None:
                    self._wake()
                    return batch
                self._wait(deadline, f"a batch for step {learner_version + 1}", timeout_s)

    def acknowledge(self, version: int) -> None:
        """Every policy server in rotation now samples with this version, or a later one."""
        with self._changed:
            self._coordinator.version = version
            self._wake()

    def begin_evaluation(self, tasks: Sequence[Task], *, temperature: float) -> None:
        """Run these tasks before any further training task."""
        with self._changed:
            self._coordinator.begin_evaluation(tasks, temperature=temperature)
            self._wake()

    def finish_evaluation(self, *, timeout_s: float) -> list[Trajectory]:
        """The trajectories of the evaluation begun last, when all are in."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                self._check()
                finished = self._coordinator.take_evaluation()
                if finished is not None:
                    return finished
                self._wait(deadline, "the held-out evaluation", timeout_s)

    def ledger(self) -> bytes:
        """The coordinator's state as bytes, for the checkpoint."""
        with self._changed:
            return save_ledger(self._coordinator)

    def counters(self) -> Counters:
        """A copy of the counters as they are now."""
        with self._changed:
            return copy.deepcopy(self._coordinator.counters)

    def drain(self, reason: str, *, timeout_s: float) -> None:
        """Tell every actor that no more tasks will come, and wait until all are gone."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._draining = reason
            self._wake()
            while self._coordinator.actors and time.monotonic() < deadline:
                self._changed.wait(0.2)
            if self._coordinator.actors:
                log.warning("actors did not leave actors=%s", ",".join(self._coordinator.actors))

    def _wait(self, deadline: float, what: str, timeout_s: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise LZeroError(
                f"learner: waited {timeout_s:.0f} s for {what}: {self._coordinator.waiting_for()}"
            )
        self._changed.wait(min(remaining, 1.0))

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        self._wake_out.send(b"")

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_in, zmq.POLLIN)
        try:
            while not self._stopping:
                events = dict(poller.poll(500))
                with self._changed:
                    if self._wake_in in events:
                        while self._wake_in.poll(0):
                            self._wake_in.recv()
                    self._receive_all()
                    self._drop_silent()
                    if self._coordinator.close_overdue(time.monotonic()):
                        self._changed.notify_all()
                    self._hand_out()
        except BaseException as error:
            log.exception("intake failed")
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _receive_all(self) -> None:
        while self._router.poll(0):
            identity, *frames = self._router.recv_multipart(copy=False)
            self._receive(bytes(identity.buffer), [frame.buffer for frame in frames])

    def _receive(self, identity: bytes, frames: list[memoryview]) -> None:
        try:
            record = decode(frames)
        except ProtocolError as error:
            log.warning("message refused from=%r reason=%s", identity[:40], error)
            self._send(identity, Refused(reason=str(error)))
            return
        actor_id = identity.decode("utf-8", "replace")
        if isinstance(record, Hello):
            self._hello(identity, record)
        elif actor_id not in self._coordinator.actors:
            self._send(identity, Refused(reason="hello"))
        elif isinstance(record, Trajectory):
            self._trajectory(identity, record, sum(frame.nbytes for frame in frames))
        elif isinstance(record, Heartbeat):
            self._send(identity, Heartbeat(actor_id=actor_id, leases=()))
        elif isinstance(record, Drain):
            lost = self._coordinator.leave(actor_id, "actor_left")
            log.info("actor left actor=%s reason=%s leases=%d", actor_id, record.reason, lost)
            self._changed.notify_all()
        self._last_heard[actor_id] = time.monotonic()

    def _hello(self, identity: bytes, hello: Hello) -> None:
        refusal = ""
        if hello.schema_version != SCHEMA_VERSION:
            refusal = (
                f"actor '{hello.actor_id}' speaks wire schema {hello.schema_version}, the "
                f"coordinator {SCHEMA_VERSION}; run the same version of l-zero on both sides"
            )
        elif hello.run_id != self._run_id:
            refusal = f"actor of run '{hello.run_id}' called the coordinator of '{self._run_id}'"
        if refusal:
            log.warning("actor refused reason=%s", refusal)
            self._send(identity, Refused(reason=refusal))
            return
        self._coordinator.join(hello)
        log.info(
            "actor joined actor=%s credit=%d kernel=%s",
            hello.actor_id, hello.credit, hello.kernel_level,
        )  # fmt: skip
        self._send(identity, Welcome(run_id=self._run_id, schema_version=SCHEMA_VERSION))

    def _trajectory(self, identity: bytes, trajectory: Trajectory, num_bytes: int) -> None:
        fresh = self._coordinator.receive(
            trajectory,
            learner_version=self._learner_version,
            now=time.monotonic(),
            num_bytes=num_bytes,
        )
        if fresh:
            self._store.append(trajectory)
        self._send(identity, Ack(trajectory_id=trajectory.trajectory_id))
        self._changed.notify_all()

    def _drop_silent(self) -> None:
        now = time.monotonic()
        for actor_id in self._coordinator.actors:
            silent = now - self._last_heard.get(actor_id, now)
            if silent > self._silence_s:
                lost = self._coordinator.leave(actor_id, "actor_silent")
                log.warning(
                    "actor silent actor=%s seconds=%.0f leases_returned=%d", actor_id, silent, lost
                )

    def _hand_out(self) -> None:
        if self._draining is not None:
            for actor_id in set(self._coordinator.actors) - self._drained:
                self._send(actor_id.encode(), Drain(reason=self._draining))
                self._drained.add(actor_id)
            return
        for actor_id, lease in self._coordinator.hand_out():
            self._send(actor_id.encode(), lease)

    def _send(self, identity: bytes, record: Record) -> None:
        self._router.send_multipart([identity, *encode(record)])
