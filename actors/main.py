"""An actor process: ``python -m actors.main --config RUN/config.json --actor-id a0``."""

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path

import uvloop

from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.link import CoordinatorLink
from actors.runner import run_leases
from actors.tools.started import started_tools
from actors.wiring import LOOPBACK, make_policy, make_runner
from common.config import Config
from common.config_file import load_config
from common.errors import LZeroError
from common.run_key import read_run_key
from common.telemetry import configure_logging

log = logging.getLogger(__name__)


async def serve(config: Config, actor_id: str, folder: Path) -> None:
    """Run episodes for the coordinator until it drains this actor; write the totals."""
    launcher = make_launcher(config.kernel, config.sandbox)
    policy = make_policy(config)
    kernels = KernelPool(launcher, idle=config.kernel.idle)
    try:
        await kernels.start()
        link = make_link(config, actor_id, launcher.level, read_run_key(folder))
        try:
            async with started_tools(config) as tools:
                runner = make_runner(
                    config, actor_id=actor_id, policy=policy, kernels=kernels, tools=tools
                )
                lost = await run_leases(link, runner)
        finally:
            link.close()
        log.info("actor finished unacknowledged=%d", lost)
        totals = {
            "actor_id": actor_id,
            "launcher": launcher.name,
            "kernel_level": launcher.level,
            "kernels_started": kernels.statistics().started,
            "requests": policy.statistics().requests,
            "request_retries": policy.statistics().retries,
            "tokens_generated": policy.statistics().tokens,
            "resent": link.resent,
        }
        (folder / "actors").mkdir(exist_ok=True)
        (folder / "actors" / f"{actor_id}.json").write_text(json.dumps(totals, indent=1))
    finally:
        await kernels.close()
        await policy.close()


def make_link(config: Config, actor_id: str, kernel_level: str, run_key: str) -> CoordinatorLink:
    """The actor's side of the transport, not connected yet."""
    transport = config.transport
    return CoordinatorLink(
        f"tcp://{LOOPBACK}:{transport.port}",
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
    arguments = parser.parse_args()
    configure_logging(arguments.actor_id)
    try:
        config = load_config(arguments.config)
        uvloop.run(serve(config, arguments.actor_id, arguments.config.parent))
    except (LZeroError, TimeoutError) as error:
        log.error("%s", error)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
