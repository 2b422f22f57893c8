"""An actor process for transport tests: answers every lease with a made trajectory."""

import asyncio
import sys

from actors.link import CoordinatorLink
from common.messages import Purpose
from common.testing import make_trajectory


async def serve(endpoint: str, actor_id: str, behaviour: str) -> None:
    link = CoordinatorLink(
        endpoint,
        actor_id=actor_id,
        run_id="run",
        credit=4,
        kernel_level="none",
        heartbeat_s=0.05,
        resend_s=0.2,
        silence_s=20.0,
    )
    talking = asyncio.create_task(link.run())
    while (lease := await link.next_lease()) is not None:
        if behaviour == "silent":
            continue
        trajectory = make_trajectory(
            lease.lease_id,
            group_id=lease.group_id,
            sample_index=lease.sample_index,
            purpose=Purpose(lease.purpose),
        )
        await link.deliver(trajectory)
        if behaviour == "twice":
            await link.deliver(trajectory)
    await talking
    lost = await link.leave(timeout_s=5.0)
    link.close()
    sys.exit(lost)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:4]))
