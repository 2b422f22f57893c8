"""Drives many episodes at once: leases in, trajectories out, until the coordinator says drain.

consumes   leases of the link
produces   trajectories for the link
waits for  a lease; the number in flight is bounded by the credit that the link announced
unblocked by  the coordinator

The invariant kept here: every lease that comes is delivered exactly once, as what became of its
episode or as a failure that names what went wrong; only a lease that the coordinator revoked, or
that a drain leaves no time for, is not delivered.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from actors.episode import EpisodeRunner
from actors.link import CoordinatorLink
from common.telemetry.process_totals import ActorTotals
from common.waits.catalogue import Part
from common.waits.register import subject
from common.wire.records import Outcome, TaskLease, Trajectory

log = logging.getLogger(__name__)


async def run_leases(
    link: CoordinatorLink, runner: EpisodeRunner, totals: Callable[[], ActorTotals]
) -> int:
    """Run every lease that comes; returns how many trajectories were never acknowledged.

    ``totals`` are asked for when no episode runs any more, and said with the goodbye.

    When the coordinator drains, episodes still running have the time to finish that it gives; what
    is left is abandoned, and handed back by the goodbye.
    """
    episodes: dict[str, asyncio.Task[None]] = {}

    def revoke(lease_id: str) -> None:
        if (episode := episodes.get(lease_id)) is not None:
            episode.cancel()

    talking = asyncio.create_task(link.run(revoke), name="link")
    try:
        while (lease := await link.next_lease()) is not None:
            lease_id = lease.lease_id
            episodes[lease_id] = asyncio.create_task(run_lease(link, runner, lease), name=lease_id)
            episodes[lease_id].add_done_callback(lambda task: episodes.pop(task.get_name(), None))
        if link.finish_s:
            await _finish(episodes, talking, within_s=link.finish_s)
        if talking.done():
            await talking
    finally:
        talking.cancel()
        for episode in list(episodes.values()):
            episode.cancel()
        await asyncio.gather(talking, *episodes.values(), return_exceptions=True)
    return await link.leave(totals, timeout_s=5.0)


async def _finish(
    episodes: Mapping[str, asyncio.Task[None]], talking: asyncio.Task[None], *, within_s: float
) -> None:
    """Wait for the episodes while the talk goes on, a limited time."""
    over = asyncio.gather(*episodes.values(), return_exceptions=True)
    either: set[asyncio.Future[Any]] = {over, talking}
    await asyncio.wait(either, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)


async def run_lease(link: CoordinatorLink, runner: EpisodeRunner, lease: TaskLease) -> None:
    """Run one lease within its time and deliver what became of it, whatever happens."""
    started_at = time.time()
    try:
        with subject(Part.LEASE, lease.lease_id):
            trajectory = await _within_its_time(runner, lease)
        await link.deliver(trajectory)
    except Exception as error:  # nothing that one episode does may be lost in silence
        log.exception("episode failed lease=%s", lease.lease_id)
        await link.deliver(failed_trajectory(lease, link.actor_id, error, started_at))


async def _within_its_time(runner: EpisodeRunner, lease: TaskLease) -> Trajectory:
    try:
        async with asyncio.timeout(lease.timeout_s) as limit:
            return await runner.run(lease)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(
            f"the episode was not done after {lease.timeout_s:g} s "
            "(agent.episode_timeout_s + transport.lease_grace_s)"
        ) from error


def failed_trajectory(
    lease: TaskLease, actor_id: str, error: BaseException, started_at: float
) -> Trajectory:
    """What is delivered of a lease whose episode left nothing that can be sent."""
    failure = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
    return Trajectory(
        trajectory_id=lease.lease_id,
        task_id=lease.task.task_id,
        group_id=lease.group_id,
        sample_index=lease.sample_index,
        purpose=lease.purpose,
        actor_id=actor_id,
        outcome=Outcome.INFRASTRUCTURE,
        segments=(),
        step_rewards=np.zeros(0, dtype=np.float32),
        steps=(),
        answer=None,
        scores={},
        failure=failure[:2000],
        question=lease.task.question,
        started_at=started_at,
        finished_at=time.time(),
    )
