"""An actor whose episodes are made up: ``python -m tests.faults.actor --plan P --name a0 ...``.

Link and transport are the real ones. An episode takes a drawn time, and is of the version that the
policy servers have when it begins; with ``twice`` it is delivered two times.
"""

import argparse
import asyncio
import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from actors.link import CoordinatorLink
from actors.runner import run_leases
from common.config_file import load_config
from common.places import RunPlan
from common.plan_file import load_plan, own_keys, tell_welcomed, told_coordinator
from common.wire.records import TaskLease, Trajectory
from common.wire.sockets import Wire
from tests.faults.settings import CONFIG, VERSION, Settings, load_settings
from tests.makers import make_totals, make_trajectory

LONGEST_S = 0.2
"""Of an episode."""


class MadeUp:
    """In place of an episode runner."""

    def __init__(self, plan: RunPlan, link: CoordinatorLink, settings: Settings) -> None:
        self._version = Path(plan.private) / VERSION
        self._link, self._twice = link, settings.twice

    async def run(self, lease: TaskLease) -> Trajectory:
        began, version = time.time(), int(self._version.read_text())
        await asyncio.sleep(random.Random(lease.lease_id).uniform(0, LONGEST_S))
        made = make_trajectory(
            lease.lease_id, group_id=lease.group_id, sample_index=lease.sample_index,
            purpose=lease.purpose, task_id=lease.task.task_id, actor_id=self._link.actor_id,
            version=version,
        )  # fmt: skip
        made = replace(made, started_at=began, finished_at=time.time())
        if self._twice:
            await self._link.deliver(made)
        return made


async def serve(plan: RunPlan, name: str, folder: Path) -> None:
    """As ``actors.main`` does it, without kernels, tools and judges."""
    config, address = load_config(folder / CONFIG), told_coordinator(plan)
    assert address is not None
    with Wire(own_keys(plan, name)) as wire:
        link = CoordinatorLink(
            wire, address, actor_id=name, credit=config.actors.episodes, kernel_level="none",
            heartbeat_s=config.transport.heartbeat_s, resend_s=config.transport.resend_s,
            patience_s=config.transport.patience_s,
        )  # fmt: skip
        link.on_welcome = partial(tell_welcomed, plan, name)
        runner = MadeUp(plan, link, load_settings(folder))
        await run_leases(link, runner, make_totals)  # type: ignore[arg-type]
        link.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--plan", "--folder"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--name", required=True)
    given = parser.parse_args()
    asyncio.run(serve(load_plan(given.plan), given.name, given.folder))
