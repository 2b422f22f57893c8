"""A policy server: ``python -m actors.inference.server --config C --plan PLAN --name s0``.

The process is the host of vLLM: its front lives in it, its core is a child of it. What it listens
at are a door of ours, for members with keys of the run, and vLLM's own sockets, in a folder that
only the run's user can enter.
"""

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path

import uvloop

from actors.inference.host.serving import HOST_LIMITS, Host
from actors.inference.vllm_options import Option, engine_options, is_cpu_build, vllm_environment
from common.config_file import load_config
from common.errors import LZeroError
from common.model_config import read_model_config
from common.places import Role, RunPlan
from common.plan_file import load_plan, own_keys, server_place, tell_ready
from common.telemetry.log_lines import configure_logging
from common.wire.sockets import Wire

log = logging.getLogger(__name__)

_ASKING: tuple[Role, ...] = ("learner", "actor", "evaluation")
"""Who may ask a policy server."""


async def serve(plan: RunPlan, name: str, options: dict[str, Option]) -> None:
    """Serve the place ``name`` of the plan with a vLLM of these options."""
    # It reads its environment when it is imported.
    from actors.inference.host.vllm import start_vllm

    address, keys = server_place(plan, name).address, own_keys(plan, name)
    known = {member.key: member.name for member in plan.members if member.role in _ASKING}
    with Wire(keys) as wire:
        door = wire.listen_async("policy server", address, known, HOST_LIMITS)
        host = Host(door, partial(start_vllm, options), name=name, keys=keys)
        await host.run(partial(tell_ready, plan, name))


def main() -> int:
    """Parse arguments and serve; 2 for an expected error."""
    parser = argparse.ArgumentParser(prog="python -m actors.inference.server", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--plan", type=Path, required=True, help="plan of the run")
    parser.add_argument("--name", required=True, help="of this server in the plan")
    arguments = parser.parse_args()
    configure_logging("policy-server")
    try:
        config, plan = load_config(arguments.config), load_plan(arguments.plan)
        cpu = is_cpu_build()
        longest = read_model_config(Path(config.model.path)).get("max_position_embeddings")
        os.environ.update(
            vllm_environment(
                config,
                cpu=cpu,
                private=Path(plan.private),
                inherited=os.environ,
                first_gpu=server_place(plan, arguments.name).first_gpu,
            )
        )
        # What a server that was killed has left would be in the way of the one that follows it.
        Path(server_place(plan, arguments.name).address.bind).unlink(missing_ok=True)
        options = engine_options(config, cpu=cpu, longest=longest)
        uvloop.run(serve(plan, arguments.name, options))
    except LZeroError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
