"""Looks at everything a run needs before anything is started; one clear line for each fault."""

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from actors.agent.prompt import load_template
from actors.kernels.bubblewrap import check_sandbox
from actors.kernels.runtime import find_runtime
from actors.rewards.maths.process import PATIENCE_S
from actors.rewards.scorer import Scorer
from actors.rewards.task_types import task_type
from actors.tools.catalogue import make_tools, missing_variables
from actors.tools.search.index import SearchIndex
from actors.tools.started import run_corpora
from common.child_process import SOURCE_ROOT
from common.config import Config
from common.errors import ConfigError, InputError, MachineError
from common.model_config import read_model_config
from common.places import LEARNER, Address
from common.plan_file import own_keys
from common.task_rules import task_rules, training_files
from common.tasks import read_sources
from common.telemetry.writers import wandb_project
from common.wire.records import Task
from common.wire.sockets import Wire
from launch.data.task_check import read_checked
from launch.models.model_checks import check_model
from launch.plan.topology import RunFiles
from launch.run.config_pairs import check_pairs
from launch.sizing.fit import check_room
from launch.sizing.machine import this_machine
from launch.starters.private import make_plan, private_folder
from learner.coordination.intake import ACTOR_LIMITS


def check_run(config: Config) -> None:
    """Check model, agent, task files, corpora and sandbox of a run.

    Raises:
        ConfigError: two keys exclude each other, or a tool, a reward term or the system prompt
            cannot be used.
        InputError: a file or folder the configuration names cannot be used.
        MachineError: the machine lacks something.
    """
    check_pairs(config)
    if config.run.wandb != "disabled":
        wandb_project()
    model = config.model
    check_model(Path(model.path), max_context=model.max_context, lora=model.lora)
    check_agent(config)
    if not config.world.enabled:
        check_task_files(config)
    if config.kernel.minimum_level != "unsafe":
        check_sandbox_present()
    check_listening(config)


def check_machine(config: Config, model: Path) -> list[str]:
    """Refuse a run that cannot fit this machine; nothing is loaded for it.

    Args:
        config: of the run.
        model: its folder.

    Returns:
        Warnings, where it is close.

    Raises:
        InputError: the model folder cannot be used.
        MachineError: see ``launch.sizing.fit.check_room``.
    """
    machine = this_machine()
    if machine is None:
        return []
    return check_room(read_model_config(model), config, machine)


def check_listening(config: Config) -> Address:
    """Where the coordinator listened for a moment, as it will; another may take it meanwhile.

    Raises:
        MachineError: it cannot, for instance because the address is in use.
    """
    with tempfile.TemporaryDirectory() as scratch, private_folder(Path(scratch)) as private:
        plan = make_plan(config, RunFiles(config=Path(scratch), private=private))
        with Wire(own_keys(plan, LEARNER)) as wire:
            door = wire.listen("coordinator", plan.coordinator, {}, ACTOR_LIMITS)
            door.close()
            return door.address


def locate_model(path: str) -> Path:
    """The model folder as seen from here, or from this clone for the shipped one; absolute."""
    here = Path(path).expanduser().resolve()
    shipped = SOURCE_ROOT / path
    return shipped if not here.exists() and shipped.is_dir() else here


def check_agent(config: Config) -> None:
    """Make the agent's tools, rewards, task types and prompt once, without connecting to anything.

    Raises:
        ConfigError: a name is unknown, or a section of the configuration cannot work.
        MachineError: a tool needs a variable that is not set.
    """
    load_template(config.agent.system_prompt)
    Scorer(config.rewards)
    for kind in config.tasks.kinds:
        task_type(kind)
    tools = make_tools(config, run_corpora(config))
    for name, variables in missing_variables(tools).items():
        raise MachineError(
            f"agent.tools: '{name}' needs the environment variable {' and '.join(variables)}, "
            "which is not set; set it where the run is started"
        )


def check_task_files(config: Config) -> None:
    """Check the user's task files and corpora.

    Raises:
        InputError: a file is missing or malformed, or a task names a corpus that is not there.
    """
    tasks = config.tasks
    if not training_files(config):
        raise InputError(
            "tasks.train is empty: name a task file, give [[tasks.sources]], or set "
            "world.enabled = true"
        )
    if "search" in config.agent.tools and config.tools.search.provider == "local":
        check_corpora(config)
    for folder in filter(lambda name: not Path(name).is_dir(), tasks.file_folders):
        raise InputError(f"tasks.file_folders: {folder} is not a folder")
    rules = task_rules(config)
    for suite in config.evaluation.suites:
        check_scoring(config, read_checked(Path(suite.tasks), rules), trains=False)
    found = read_sources(training_files(config), partial(read_checked, rules=rules))
    check_scoring(config, list(chain.from_iterable(found.values())), trains=True)


def check_scoring(config: Config, tasks: Sequence[Task], *, trains: bool) -> None:
    """Refuse tasks whose answers could not be scored as configured.

    Raises:
        ConfigError: names the keys.
    """
    check_judged(config, tasks, trains=trains)
    least = PATIENCE_S + 1
    if config.rewards.timeout_s < least and any(task.kind == "math" for task in tasks):
        raise ConfigError(
            f"rewards.timeout_s ({config.rewards.timeout_s:g}) must be at least {least:g} for "
            f"tasks of kind 'math': one comparison may take {PATIENCE_S:g} s, and the episode of "
            "an answer that is cut off before would be dropped instead of being wrong"
        )


def check_judged(config: Config, tasks: Sequence[Task], *, trains: bool) -> None:
    """Refuse tasks that another model judges, where none is named or they are trained on.

    Raises:
        ConfigError: names the keys.
    """
    first = next((task for task in tasks if task.kind == "judged"), None)
    if first is None:
        return
    if trains and not config.rewards.judge_trains:
        raise ConfigError(
            f"training task {first.task_id!r} is of kind 'judged': the model would be trained on "
            "what another model says of it, and learn to please that. Keep such tasks for "
            "evaluation.suites, or set rewards.judge_trains = true if that is what you want"
        )
    if not config.rewards.judge:
        raise ConfigError(
            f"task {first.task_id!r} is of kind 'judged', but rewards.judge names no table "
            "[services.NAME] of a server whose model judges: set rewards.judge = 'NAME' and "
            "services.NAME.base_url = 'http://HOST:8000/v1' (docs/rewards.md)"
        )


def check_corpora(config: Config) -> None:
    """Open the search indexes of a run once.

    Raises:
        InputError: there is none, or it is not an index.
    """
    if not config.tasks.train_corpus:
        raise InputError(
            "tasks.train_corpus is empty: name a search index (lzero index makes it), or leave "
            "'search' out of agent.tools"
        )
    own = (suite.corpus for suite in config.evaluation.suites if suite.corpus)
    for corpus in {*run_corpora(config).values(), *own}:
        SearchIndex(Path(corpus)).close()


def check_sandbox_present() -> None:
    """Check that bubblewrap is there and that a sandbox really starts.

    Raises:
        MachineError: it is missing, or this machine does not let it work.
    """
    if not shutil.which("bwrap"):
        raise MachineError(
            "bubblewrap (bwrap) is missing, the sandbox of the notebook kernels; install it with: "
            "sudo apt-get install bubblewrap"
        )

    check_sandbox(find_runtime())
