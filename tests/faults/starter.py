"""Starts and watches the processes of a run: ``python -m tests.faults.starter RUN``.

The supervisor, its guards and the specs are those of ``lzero train``; what the learner and, unless
they are whole, the actors run is ours. Waits before restarts are short.
"""

import dataclasses
import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from common import restarts
from common.child_process import module_command
from common.config_file import save_config
from common.places import LEARNER, RunPlan
from common.plan_file import PLAN, told_ready
from common.telemetry.alert_lines import append_alert
from launch.plan.topology import RunFiles
from launch.starters import specs
from launch.starters.child import ProcessSpec
from launch.starters.local import Supervisor
from launch.starters.private import make_plan, private_folder
from tests.faults.settings import (
    ALERTS,
    CONFIG,
    MODEL,
    TASKS,
    VERSION,
    Settings,
    config_of,
    load_settings,
)

SCRIPTS = "scripts.json"


def server(plan: RunPlan, folder: Path) -> ProcessSpec:
    """A policy server that submits the right answer, as the version that there is."""
    answer = "<think>go on</think><code>submit_final_answer({})</code>"
    scripts = {task.question: [answer.format(repr(task.answers[0]))] for task in TASKS}
    (folder / SCRIPTS).write_text(json.dumps(scripts))
    (place,) = plan.servers
    private = Path(plan.private)
    words = (str(private / PLAN), str(MODEL), str(folder / SCRIPTS), str(private / VERSION))
    return ProcessSpec(
        name="policy-server",
        command=module_command("tests.integration.scripted_server", *words),
        log=folder / "policy-server.log",
        is_ready=partial(told_ready, plan, place.name),
        is_restarted=True,
    )


def learner(plan: RunPlan, folder: Path) -> ProcessSpec:
    """A learner that trains nothing."""
    words = ("--plan", str(Path(plan.private) / PLAN), "--folder", str(folder))
    spec = specs.learner(plan, folder, grace_s=5, hint=lambda: "")
    return dataclasses.replace(spec, command=module_command("tests.faults.learner", *words), env={})


def actors(plan: RunPlan, folder: Path, settings: Settings) -> list[ProcessSpec]:
    """Real ones, or ones whose episodes are made up."""
    given = specs.actors(plan, folder, grace_s=5, hint=lambda: "")
    if settings.whole:
        return given
    words = ("--plan", str(Path(plan.private) / PLAN), "--folder", str(folder))
    made_up = module_command("tests.faults.actor", *words)
    return [
        dataclasses.replace(spec, command=(*made_up, "--name", f"a{number}"))
        for number, spec in enumerate(given)
    ]


def main(folder: Path) -> None:
    """From the start, or from what an earlier starter has left, to the end."""
    restarts.FIRST_S = 0.05
    settings = load_settings(folder)
    with ExitStack() as stack:
        private = stack.enter_context(private_folder(folder))
        config = config_of(settings, folder)
        save_config(config, folder / CONFIG)
        plan = make_plan(config, RunFiles(config=folder / CONFIG, private=private))
        (private / VERSION).write_text("0")
        tell = partial(append_alert, Path(settings.doors) / ALERTS)
        supervisor = stack.enter_context(Supervisor(tell=tell, grace_s=1.0))
        servers = [server(plan, folder)] if settings.whole else []
        supervisor.start(*servers, learner(plan, folder))
        members = actors(plan, folder, settings)
        for actor in members:
            supervisor.spawn(actor)
        names = [actor.name for actor in members]
        supervisor.finish(LEARNER, ending=names)
        supervisor.end_restarts()
        supervisor.see_off(*names, patience_s=30)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
