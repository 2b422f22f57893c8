"""An actor process: ``python -m actors.main --config RUN/config.json --actor-id a0 ...``."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import uvloop

from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.link import CoordinatorLink
from actors.runner import run_leases
from actors.tools.started import started_tools
from actors.wiring import make_policy, make_runner, started_judge
from common.config import Config
from common.config_file import load_config
from common.errors import LZeroError
from common.run_key import read_run_key
from common.telemetry.log_lines import configure_logging
from common.telemetry.process_totals import ActorTotals, write_totals

log = logging.getLogger(__name__)


async def serve(config: Config, actor_id: str, folder: Path, *, coordinator: str) -> None:
    """Run episodes for the coordinator at that address until it drains this actor."""
    launcher = make_launcher(config.kernel, config.sandbox)
    policy = make_policy(config)
    kernels = KernelPool(launcher, idle=config.kernel.idle)
    try:
        await kernels.start()
        run_key = read_run_key(folder)
        link = make_link(config, actor_id, launcher.level, coordinator, run_key)
        try:
            async with started_judge(config) as judge, started_tools(config) as tools:
                runner = make_runner(
                    config,
                    actor_id=actor_id,
                    policy=policy,
                    kernels=kernels,
                    tools=tools,
                    judge=judge,
                )
                lost = await run_leases(link, runner)
        finally:
            link.close()
        log.info("actor finished unacknowledged=%d", lost)
        totals = ActorTotals(
            actor_id=actor_id,
            launcher=launcher.name,
            kernel_level=launcher.level,
            kernels_started=kernels.statistics().started,
            requests=policy.statistics().requests,
            request_retries=policy.statistics().retries,
            tokens_generated=policy.statistics().tokens,
            resent=link.resent,
        )
        (folder / "actors").mkdir(exist_ok=True)
        write_totals(totals, folder / "actors" / f"{actor_id}.json")
    finally:
        await kernels.close()
        await policy.close()


def make_link(
    config: Config, actor_id: str, kernel_level: str, coordinator: str, run_key: str
) -> CoordinatorLink:
    """The actor's side of the transport, not connected yet."""
    transport = config.transport
    return CoordinatorLink(
        coordinator,
        actor_id=actor_id,
        run_key=run_key,
        credit=config.actors.episodes,
        kernel_level=kernel_level,
        heartbeat_s=transport.heartbeat_s,
        resend_s=transport.resend_s,
        silence_s=transport.silence_s,
    )


def main() -> int:
    """Parse arguments and run; 2 for an expected error."""
    parser = argparse.ArgumentParser(prog="python -m actors.main", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--actor-id", required=True)
    parser.add_argument(
        "--coordinator", required=True, help="address, as the learner's learner.ready says it"
    )
    arguments = parser.parse_args()
    configure_logging(arguments.actor_id)
    try:
        config = load_config(arguments.config)
        folder, coordinator = arguments.config.parent, arguments.coordinator
        uvloop.run(serve(config, arguments.actor_id, folder, coordinator=coordinator))
    except (LZeroError, TimeoutError) as error:
        log.error("%s", error)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
