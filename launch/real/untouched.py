"""Asks a model, as it came, the first held-out questions of a run, with the shipped prompt."""

import dataclasses
import shutil
from pathlib import Path

from actors.agent.prompt import SHIPPED
from common.config import Config, Evaluation, Learner
from common.config_file import save_config
from common.model_config import CONFIG, longest_context, read_model_config
from launch.evaluate.world import TRAIN_TASKS, ask_suites
from launch.plan.evaluation import heldout_suite
from launch.plan.topology import RunFiles
from launch.real.recipe import Untouched
from launch.report.progress import ProgressPanel
from launch.run.folder import RunFolder
from launch.run.world import make_world, use_world
from launch.starters.private import private_folder


def ask_untouched(
    config: Config, settings: Untouched, model: Path, out: Path, progress: ProgressPanel
) -> None:
    """Leave scores and episodes in ``out``, which appears when they are whole.

    Args:
        config: of the run.
        settings: what is other than in the run.
        model: folder of the model.
        out: folder to write.
        progress: shows the scores.

    Raises:
        RunError: the policy server or the evaluation failed.
    """
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    folder = RunFolder(partial)
    asked = untouched_config(config, settings, model, folder.tasks)
    world = dataclasses.replace(config.world, train_tasks=TRAIN_TASKS)
    make_world(folder.tasks, world)
    save_config(asked, folder.config)
    with private_folder(partial) as private:
        ask_suites(asked, folder, RunFiles(config=folder.config, private=private), progress)
    folder.evaluation.rename(out)
    shutil.rmtree(partial, ignore_errors=True)


def untouched_config(config: Config, settings: Untouched, model: Path, world: Path) -> Config:
    """The run's configuration with the shipped prompt, room for it if the model has, one suite.

    Raises:
        InputError: the model's description cannot be used.
    """
    longest = longest_context(read_model_config(model), model / CONFIG)
    context = min(settings.max_context, longest or settings.max_context)
    suite = dataclasses.replace(
        heldout_suite(world),
        when=("after",),
        per_family=settings.per_family,
        temperature=settings.temperature,
    )
    agent = dataclasses.replace(
        config.agent,
        system_prompt=SHIPPED,
        accepted_actions="any",
        format_reminders=settings.format_reminders,
        max_action_tokens=settings.max_action_tokens,
    )
    return dataclasses.replace(
        use_world(dataclasses.replace(config, evaluation=Evaluation()), world),
        agent=agent,
        model=dataclasses.replace(config.model, path=str(model), max_context=context),
        learner=Learner(pack_tokens=1 << 30),  # nothing is trained: any context will do
        evaluation=Evaluation(suites=(suite,)),
    )
