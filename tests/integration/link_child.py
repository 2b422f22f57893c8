"""An actor process for transport tests: answers every lease with a made trajectory."""

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

from actors.link import CoordinatorLink
from actors.runner import run_leases
from common.places import Address
from common.wire.keys import read_key_pair
from common.wire.records import TaskLease, Trajectory
from common.wire.sockets import Wire
from tests.makers import make_totals, make_trajectory


class Scripted:
    """In place of an episode runner: behaves as the test asks, at once or for its first lease."""

    def __init__(self, link: CoordinatorLink, behaviour: str, begun: Path | None) -> None:
        self.link, self.behaviour, self.is_first = link, behaviour, True
        self.begun = begun
        """File that gets the id of every lease that is begun."""
        self.told = asyncio.Event()
        """Somebody said to go on, by a line to the standard input."""
        if behaviour == "first":
            asyncio.get_running_loop().add_reader(sys.stdin, self.told.set)

    async def run(self, lease: TaskLease) -> Trajectory:
        is_first, self.is_first = self.is_first, False
        if self.begun is not None:
            with self.begun.open("a") as lines:
                lines.write(f"{lease.lease_id}\n")
        trajectory = make_trajectory(
            lease.lease_id,
            group_id=lease.group_id,
            sample_index=lease.sample_index,
            purpose=lease.purpose,
            task_id=lease.task.task_id,
            actor_id=self.link.actor_id,
        )
        match self.behaviour:
            case "first" if not is_first:
                await self.told.wait()
            case "silent":
                await asyncio.Event().wait()
            case "twice":
                await self.link.deliver(trajectory)
            case "stall" if is_first:
                time.sleep(2.0)  # the event loop stands still: that is the point
            case "unencodable" if is_first:
                return replace(trajectory, scores={"exact_match": True})
        return trajectory


async def serve(
    wire: Wire, coordinator: Address, actor_id: str, behaviour: str, begun: str = ""
) -> None:
    link = CoordinatorLink(
        wire,
        coordinator,
        actor_id=actor_id,
        credit=4,
        kernel_level="none",
        heartbeat_s=0.05,
        resend_s=0.2,
        patience_s=20.0,
    )
    scripted = Scripted(link, behaviour, Path(begun) if begun else None)
    lost = await run_leases(link, scripted, make_totals)
    link.close()
    sys.exit(lost)


if __name__ == "__main__":
    address, keys, *rest = sys.argv[1:]
    with Wire(read_key_pair(Path(keys))) as wire:
        asyncio.run(serve(wire, Address(**json.loads(address)), *rest))
