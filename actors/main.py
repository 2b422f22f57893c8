"""An actor process: ``python -m actors.main --config RUN/config.json --plan PLAN --name a0``."""

import argparse
import asyncio
import logging
import sys
from functools import partial
from pathlib import Path

import uvloop

from actors.kernels.launchers import ChosenLauncher, make_launcher
from actors.kernels.pool import KernelPool
from actors.link import CoordinatorLink
from actors.mending import Mending
from actors.policy import PolicyClient
from actors.runner import run_leases
from actors.tools.started import started_tools
from actors.wiring import Following, make_runner, started_judge, token_conversations
from common.config import Config
from common.config_file import load_config
from common.errors import LZeroError, MachineError
from common.places import Address, RunPlan
from common.plan_file import (
    LastWord,
    load_plan,
    own_keys,
    tell_ending,
    tell_welcomed,
    told_coordinator,
)
from common.stopping import STOP_SIGNALS
from common.telemetry.alert_lines import RESTARTS, append_alert
from common.telemetry.log_lines import configure_logging
from common.telemetry.process_totals import ActorTotals
from common.wire.sockets import Wire

log = logging.getLogger(__name__)


async def serve(config: Config, plan: RunPlan, actor_id: str, folder: Path) -> None:
    """Run episodes for the coordinator of the plan until it drains this actor."""
    mending = Mending(partial(tell_restart, folder, actor_id))
    launcher = make_launcher(config.kernel, mending)
    wire = Wire(own_keys(plan, actor_id))
    following = Following(config, wire, who=actor_id)
    policy = following.policy
    kernels = KernelPool(launcher, idle=config.kernel.idle)
    try:
        await kernels.start()
        link = make_link(config, actor_id, launcher.level, wire, coordinator_of(plan))
        link.on_rotation = following
        link.on_welcome = partial(tell_welcomed, plan, actor_id)
        try:
            async with (
                started_judge(config, kernels, mending) as judge,
                started_tools(config) as tools,
            ):
                runner = make_runner(
                    config,
                    actor_id=actor_id,
                    conversations=token_conversations(config, policy),
                    kernels=kernels,
                    tools=tools,
                    judge=judge,
                )
                leave_when_asked(link)
                mending.on_given_up = link.end
                totals = partial(totals_of, launcher, kernels, policy, link)
                lost = await run_leases(link, runner, totals)
                if mending.given_up is not None:
                    raise mending.given_up
        finally:
            link.close()
        log.info("actor finished unacknowledged=%d", lost)
    finally:
        await kernels.close()
        await policy.close()
        wire.close()


def totals_of(
    launcher: ChosenLauncher, kernels: KernelPool, policy: PolicyClient, link: CoordinatorLink
) -> ActorTotals:
    """What this process has done so far."""
    asked = policy.statistics()
    return ActorTotals(
        launcher=launcher.name,
        kernel_level=launcher.level,
        kernels_started=kernels.statistics().started,
        requests=asked.requests,
        request_retries=asked.retries,
        tokens_generated=asked.tokens,
        resent=link.resent,
    )


def tell_restart(folder: Path, actor_id: str, text: str) -> None:
    """Say to whoever watches the run that a part of this actor is started again."""
    append_alert(folder / RESTARTS, f"actor {actor_id}: {text}")


def leave_when_asked(link: CoordinatorLink) -> None:
    """On a signal that asks this process to end, hand back what it holds."""
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, link.end)


def make_link(
    config: Config, actor_id: str, kernel_level: str, wire: Wire, coordinator: Address
) -> CoordinatorLink:
    """The actor's side of the transport, not connected yet."""
    transport = config.transport
    return CoordinatorLink(
        wire,
        coordinator,
        actor_id=actor_id,
        credit=config.actors.episodes,
        kernel_level=kernel_level,
        heartbeat_s=transport.heartbeat_s,
        resend_s=transport.resend_s,
        patience_s=transport.patience_s,
    )


def coordinator_of(plan: RunPlan) -> Address:
    """Where the coordinator listens.

    Raises:
        MachineError: it does not listen yet.
    """
    address = told_coordinator(plan)
    if address is None:
        raise MachineError("the coordinator does not listen yet; start the learner first")
    return address


def main() -> int:
    """Parse arguments and run; 2 for an expected error."""
    parser = argparse.ArgumentParser(prog="python -m actors.main", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--plan", type=Path, required=True, help="plan of the run")
    parser.add_argument("--name", required=True, help="of this actor in the plan")
    arguments = parser.parse_args()
    configure_logging(arguments.name)
    try:
        config, plan = load_config(arguments.config), load_plan(arguments.plan)
    except LZeroError as error:
        log.error("%s", error)
        return 2
    try:
        uvloop.run(serve(config, plan, arguments.name, arguments.config.parent))
    except (LZeroError, TimeoutError) as error:
        log.error("%s", error)
        tell_ending(plan, arguments.name, LastWord(reason=str(error), is_final=False))
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
