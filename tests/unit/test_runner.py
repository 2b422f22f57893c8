"""Every lease that an actor gets is delivered once, whatever its episode does."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from actors.link import CoordinatorLink
from actors.runner import run_lease
from common.places import Address
from common.wire.records import Outcome, Purpose, Task, TaskLease, Trajectory
from common.wire.sockets import Wire, new_key_pair
from tests.makers import make_trajectory

LEASE = TaskLease(
    lease_id="g000000-0-1", group_id="g000000", sample_index=0, purpose=Purpose.TRAIN,
    temperature=1.0, task=Task(task_id="t", question="?", answers=("a",)), serial=1, timeout_s=0.2,
)  # fmt: skip


def behaving(behaviour: str) -> Trajectory | Exception | None:
    good = make_trajectory(LEASE.lease_id, group_id=LEASE.group_id, task_id="t")
    match behaviour:
        case "raises":
            return RuntimeError("nobody expected this \ud83d")
        case "hangs":
            return None
        case "bool":
            return replace(good, scores={"exact_match": True})
        case "surrogate":
            return replace(good, answer="\ud83d")
        case _:
            return good


class Runner:
    def __init__(self, result: Trajectory | Exception | None) -> None:
        self.result = result

    async def run(self, lease: TaskLease) -> Trajectory:
        if self.result is None:
            await asyncio.Event().wait()
        if isinstance(self.result, Exception):
            raise self.result
        assert self.result is not None
        return self.result


class Link(CoordinatorLink):
    """A link to nobody, which notes what it is to deliver."""

    def __init__(self, wire: Wire, nobody: Path) -> None:
        super().__init__(
            wire, Address(bind=str(nobody), key=new_key_pair().public), actor_id="a0", credit=1,
            kernel_level="", heartbeat_s=1.0, resend_s=1.0, patience_s=10.0,
        )  # fmt: skip
        self.delivered: list[Trajectory] = []
        self._held[LEASE.lease_id] = None

    async def deliver(self, trajectory: Trajectory) -> None:
        await super().deliver(trajectory)
        self.delivered.append(trajectory)


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        ("good", ""),
        ("raises", "RuntimeError: nobody expected this ?"),
        ("hangs", "TimeoutError: the episode was not done after 0.2 s (agent.episode_timeout_s + "),
        ("bool", "ProtocolError: malformed Trajectory: expected float, got bool"),
        ("surrogate", "ProtocolError: the trajectory cannot be encoded"),
    ],
)
def test_a_lease_is_delivered_once_as_what_became_of_it(
    tmp_path: Path, behaviour: str, failure: str
) -> None:
    async def play(wire: Wire) -> list[Trajectory]:
        link = Link(wire, tmp_path / "nobody")
        try:
            await run_lease(link, Runner(behaving(behaviour)), LEASE)  # type: ignore[arg-type]
        finally:
            link.close()
        return link.delivered

    with Wire(new_key_pair()) as wire:
        (delivered,) = asyncio.run(play(wire))

    assert delivered.trajectory_id == LEASE.lease_id
    assert delivered.failure.startswith(failure)
    assert (delivered.outcome is Outcome.INFRASTRUCTURE) is bool(failure)
