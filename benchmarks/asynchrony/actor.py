"""An actor of a local run whose episodes are timers: ``actor.py FOLDER ADDRESS WORKLOAD``.

consumes   leases over the run's socket, by the link and the runner of a real actor
produces   trajectories, after the time that the workload says; ``FOLDER/at_work.json`` at the end:
           when each episode began and ended, seconds of the monotonic clock
waits for  leases and timers
unblocked by  the coordinator, which says when to leave
"""

import asyncio
import json
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import uvloop

from actors.agent.conversation import Conversation
from actors.episode import EpisodeRunner
from actors.link import CoordinatorLink
from actors.runner import run_leases
from benchmarks.asynchrony.served_version import ServedVersion
from benchmarks.asynchrony.workload import Workload, read_workload
from common.config import Transport
from common.places import Address
from common.plan_file import keys_file
from common.telemetry.process_totals import ActorTotals
from common.wire.keys import read_key_pair
from common.wire.records import (
    NOT_AN_ACTION,
    Outcome,
    Purpose,
    Segment,
    Step,
    TaskLease,
    Trajectory,
)
from common.wire.sockets import Wire

ACTOR = "a0"
AT_WORK = "at_work.json"
VERSION = "version"
_PROMPT, _ACTION, _OBSERVATION, _STEPS = 128, 96, 32, 3
"""Tokens of a trajectory's parts, and how often it acts: about those of the quickstart."""


class TimedEpisodes(EpisodeRunner):
    """In place of real episodes: each takes its time and does nothing."""

    def __init__(self, workload: Workload, version: ServedVersion) -> None:
        self._workload, self._version = workload, version
        self.at_work: list[tuple[float, float]] = []

    async def run(self, lease: TaskLease, conversation: Conversation | None = None) -> Trajectory:
        """The trajectory of a lease, sampled with the version served when it began."""
        version, began, started_at = self._version.now, time.monotonic(), time.time()
        try:
            await asyncio.sleep(self._workload.episode_s(lease.group_id, lease.sample_index))
        finally:
            self.at_work.append((began, time.monotonic()))
        return replace(
            sampled_with(version),
            trajectory_id=lease.lease_id,
            task_id=lease.task.task_id,
            group_id=lease.group_id,
            sample_index=lease.sample_index,
            purpose=lease.purpose,
            started_at=started_at,
            finished_at=time.time(),
        )


@cache
def sampled_with(version: int) -> Trajectory:
    """A trajectory of one segment; every token of it by that version."""
    parts = [(NOT_AN_ACTION, _PROMPT)]
    for number in range(_STEPS):
        parts += [(number, _ACTION), (NOT_AN_ACTION, _OBSERVATION)]
    index = np.concatenate([np.full(length, number, np.int32) for number, length in parts])
    is_sampled = index != NOT_AN_ACTION
    step = Step(action="a" * 4 * _ACTION, code="pass", observation="o" * 4 * _OBSERVATION)
    return Trajectory(
        trajectory_id="", task_id="", group_id="", sample_index=0, purpose=Purpose.TRAIN,
        actor_id=ACTOR, outcome=Outcome.SUBMITTED,
        segments=(
            Segment(
                token_ids=np.arange(len(index), dtype=np.int32),
                action_index=index,
                behaviour_logprobs=np.where(is_sampled, -0.5, 0).astype(np.float32),
                versions=np.where(is_sampled, version, NOT_AN_ACTION).astype(np.int32),
            ),
        ),
        step_rewards=np.zeros(_STEPS, np.float32),
        steps=(step,) * _STEPS,
        answer="x",
        scores={"exact_match": 0.0},
        tokens_generated=int(is_sampled.sum()),
    )  # fmt: skip


async def serve(wire: Wire, coordinator: Address, workload: Workload, folder: Path) -> int:
    """Answer leases until the coordinator says drain; how many were never acknowledged."""
    transport = Transport()
    link = CoordinatorLink(
        wire, coordinator, actor_id=ACTOR, credit=workload.slots, kernel_level="none",
        heartbeat_s=transport.heartbeat_s, resend_s=transport.resend_s,
        patience_s=transport.patience_s,
    )  # fmt: skip
    with ServedVersion(folder / VERSION) as version:
        episodes = TimedEpisodes(workload, version)
        try:
            return await run_leases(link, episodes, lambda: _totals(link, episodes))
        finally:
            link.close()
            (folder / AT_WORK).write_text(json.dumps(episodes.at_work))


def _totals(link: CoordinatorLink, episodes: TimedEpisodes) -> ActorTotals:
    return ActorTotals(
        launcher="none", kernel_level="none", kernels_started=0,
        requests=len(episodes.at_work), request_retries=0, tokens_generated=0, resent=link.resent,
    )  # fmt: skip


def main(folder: Path, address: Address, workload: Workload) -> int:
    with Wire(read_key_pair(keys_file(folder, ACTOR))) as wire:
        lost: int = uvloop.run(serve(wire, address, workload, folder))
        return lost


if __name__ == "__main__":
    where, listening, work = sys.argv[1:]
    sys.exit(main(Path(where), Address(**json.loads(listening)), read_workload(work)))
