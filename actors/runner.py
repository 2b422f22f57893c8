"""Drives many episodes at once: leases in, trajectories out, until the coordinator says drain.

consumes   leases of the link
produces   trajectories for the link
waits for  a lease; the number in flight is bounded by the credit that the link announced
unblocked by  the coordinator
"""

import asyncio
import logging

from actors.episode import EpisodeRunner
from actors.link import CoordinatorLink
from common.messages import TaskLease

log = logging.getLogger(__name__)


async def run_leases(link: CoordinatorLink, runner: EpisodeRunner) -> int:
    """Run every lease that comes; returns how many trajectories were never acknowledged.

    When the coordinator drains, episodes still running are abandoned: nobody would use them.
    """
    talking = asyncio.create_task(link.run(), name="link")
    episodes: set[asyncio.Task[None]] = set()
    try:
        while (lease := await link.next_lease()) is not None:
            episode = asyncio.create_task(_one(link, runner, lease), name=lease.lease_id)
            episodes.add(episode)
            episode.add_done_callback(episodes.discard)
        await talking
    finally:
        talking.cancel()
        for episode in list(episodes):
            episode.cancel()
        await asyncio.gather(talking, *episodes, return_exceptions=True)
    return await link.leave(timeout_s=5.0)


async def _one(link: CoordinatorLink, runner: EpisodeRunner, lease: TaskLease) -> None:
    await link.deliver(await runner.run(lease))
