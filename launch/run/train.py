"""``lzero train``: one run on one machine, from the first check to the report."""

import dataclasses
import os
import shlex
import time
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

from rich.console import Console

from common.config import Agent, Config
from common.config.ranges import short
from common.config_file import load_config, save_config
from common.errors import LZeroError, RunError
from common.evaluation import Suite, write_suites
from common.join_file import JOIN_FILE
from common.places import LEARNER, RunPlan
from common.plan_file import told_stopped
from launch.data.recall import low_recall
from launch.plan.evaluation import suites_of
from launch.plan.topology import RunFiles, evaluation
from launch.report.closing import print_summary
from launch.report.page import write_report
from launch.report.progress import ProgressPanel
from launch.report.summary import Summary, build_summary, read_scores, write_summary
from launch.run.choices import OwnChoice, as_begun, choose, write_choices
from launch.run.continuation import Change, check_continuation
from launch.run.folder import (
    PhaseClock,
    RunFolder,
    RunState,
    Status,
    check_fresh,
    check_resumable,
    locked,
    set_aside,
)
from launch.run.inputs import check_inputs, write_inputs
from launch.run.preflight import check_machine, check_run, locate_model
from launch.run.scores import check_scores, check_weights
from launch.run.world import make_world, use_world
from launch.screen import say
from launch.starters import specs
from launch.starters.local import Interrupted, StopAsked, Supervisor, interruptible
from launch.starters.private import make_plan, private_folder

SETUP_SECONDS = "LZERO_SETUP_SECONDS"
"""Set by ``make quickstart``: what the set-up of this clone just took."""

_ANSWER = ("submit_final_answer",)

PROFILED_STEPS = 2
"""Steps of the learner that ``--profile`` traces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainRequest:
    """The command line of ``lzero train``."""

    config: Path
    name: str | None = None
    resume: bool = False
    keep_old: bool = False
    overrides: tuple[str, ...] = ()
    profile: bool = False
    begun_by: str = ""
    """The command that began the run and goes on with it, if it is another than ``lzero train``."""

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        if self.begun_by:
            return self.begun_by
        words = ["lzero", "train", str(self.config)]
        words += [] if self.name is None else ["--name", self.name]
        words += [word for item in self.overrides for word in ("--set", item)]
        return shlex.join([*words, "--resume"])


def train(request: TrainRequest, console: Console) -> Summary:
    """Run, or go on with, the run that ``request`` describes.

    Raises:
        LZeroError: it cannot start, or one of its processes failed.
        Interrupted: somebody ended it.
    """
    given = resolve_config(request)
    folder = RunFolder(Path(given.run.folder) / given.run.name)
    keep_old = request.keep_old and not request.resume
    if not keep_old:
        _check_folder(folder, resume=request.resume)
    if request.resume:
        given = as_begun(given, folder.config)
        _changes(folder, given)
    check_run(given)
    given, choices = choose(given)
    for choice in choices:
        say(console, f"chosen: {choice}")
    for close in check_machine(given, Path(given.model.path)):
        say(console, f"warning: {close}")
    if not request.resume and (warning := low_recall(given)):
        say(console, f"warning: {warning}")
    if keep_old and (kept := set_aside(folder)):
        say(console, f"kept the earlier run '{given.run.name}' as {kept}")
    with locked(folder):
        before = _check_folder(folder, resume=request.resume)
        if request.resume:
            _say_changes(folder, given, console)
        return _TrainRun(request, given, choices, folder, before, console).execute()


def resolve_config(request: TrainRequest) -> Config:
    """The configuration with the name of the command line and absolute paths."""
    config = load_config(request.config, request.overrides)
    run = dataclasses.replace(
        config.run,
        name=config.run.name if request.name is None else request.name,
        folder=str(Path(config.run.folder).expanduser().resolve()),
        profile_steps=PROFILED_STEPS if request.profile else 0,
    )
    model = dataclasses.replace(config.model, path=str(locate_model(config.model.path)))
    agent = _with_used_tools(config.agent)
    given = dataclasses.replace(config, run=run, model=model, agent=agent)
    resolved = _with_absolute_tasks(given)
    folder = RunFolder(Path(run.folder) / run.name)
    return use_world(resolved, folder.tasks) if config.world.enabled else resolved


def _with_used_tools(agent: Agent) -> Agent:
    """Direct mode has no notebook to call tools from, so that none needs what it works with."""
    return dataclasses.replace(agent, tools=_ANSWER) if agent.mode == "direct" else agent


def _with_absolute_tasks(config: Config) -> Config:
    tasks = dataclasses.replace(
        config.tasks,
        train=_absolute(config.tasks.train),
        sources=tuple(
            dataclasses.replace(source, path=_absolute(source.path))
            for source in config.tasks.sources
        ),
        train_corpus=_absolute(config.tasks.train_corpus),
        file_folders=tuple(map(_absolute, config.tasks.file_folders)),
    )
    suites = tuple(
        dataclasses.replace(suite, tasks=_absolute(suite.tasks), corpus=_absolute(suite.corpus))
        for suite in config.evaluation.suites
    )
    evaluation = dataclasses.replace(config.evaluation, suites=suites)
    return dataclasses.replace(config, tasks=tasks, evaluation=evaluation)


def how_to_go_on(folder: RunFolder, request: TrainRequest) -> str:
    """What a run has kept, and the command that goes on with it."""
    last = folder.last_checkpoint()
    if last is None:
        return (
            "no checkpoint was written yet; training starts at its first step again, with what its "
            f"journal and the phases before it kept, with: {request.resume_command}"
        )
    return f"checkpoint {last.name} is kept; go on with: {request.resume_command}"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""


def _changes(folder: RunFolder, config: Config) -> list[Change]:
    """What this attempt changes of the run in ``folder``; refuses what it may not."""
    return check_continuation(
        folder.config,
        config,
        steps_done=folder.steps_done(),
        is_trained=folder.learner_totals.exists(),
    )


def _say_changes(folder: RunFolder, config: Config, console: Console) -> None:
    """Name what this attempt changes, and refuse other inputs; nothing was touched before."""
    for change in _changes(folder, config):
        say(console, f"from here on: {change}")
    if not check_inputs(folder.inputs, config):
        say(console, "the run kept no record of its files; they are compared from here on")


def _check_folder(folder: RunFolder, *, resume: bool) -> RunState | None:
    if resume:
        return check_resumable(folder)
    check_fresh(folder)
    return None


class _TrainRun:
    """The phases of one command, in order."""

    def __init__(
        self,
        request: TrainRequest,
        config: Config,
        choices: tuple[OwnChoice, ...],
        folder: RunFolder,
        before: RunState | None,
        console: Console,
    ) -> None:
        self._request = request
        self._config = config
        self._choices = choices
        self._folder = folder
        self._console = console
        self._progress = ProgressPanel(console)
        self._clock = PhaseClock(before.seconds if before else None)
        setup_seconds = before.setup_seconds if before else _setup_seconds()
        self._state = RunState(
            status="running",
            started_at=before.started_at if before else time.time(),
            attempts=before.attempts + 1 if before else 1,
            setup_seconds=setup_seconds,
            restarts=before.restarts if before else [],
        )
        self._is_resumed = before is not None

    def execute(self) -> Summary:
        """Run all phases; the state file says how it ended, whatever happens."""
        self._save_state("running")
        try:
            save_config(self._config, self._folder.config)
            write_choices(self._folder.choices, self._choices)
            if not self._folder.inputs.is_file():
                write_inputs(self._folder.inputs, self._config)
            with (
                interruptible(),
                private_folder(self._folder.path) as private,
                self._progress,
            ):
                try:
                    self._run_processes(private)
                finally:
                    (self._folder.path / JOIN_FILE).unlink(missing_ok=True)
            summary = self._conclude()
        except Interrupted:
            self._save_state("interrupted")
            self._say_how_to_resume()
            raise
        except BaseException as error:
            self._state = self._state.failed_of(error)
            self._save_state("failed")
            raise
        self._save_state("finished")
        print_summary(summary, self._folder, self._console)
        if self._folder.profiles.is_dir():
            say(self._console, f"traces of the learner: {self._folder.profiles}")
        return summary

    def _run_processes(self, private: Path) -> None:
        self._progress.say(f"run folder: {self._folder.path}")
        if self._config.world.enabled and not (self._folder.tasks / "complete").exists():
            self._phase("generating the world")
            with self._clock.phase("world"):
                make_world(self._folder.tasks, self._config.world)
                (self._folder.tasks / "complete").touch()
        is_trained = self._folder.learner_totals.exists()
        served = self._trained_config() if is_trained else self._folder.config
        files = RunFiles(config=served, private=private)
        plan = make_plan(self._config, files, resume=self._is_resumed)
        with Supervisor(tick=self._progress.tick, tell=self._note_restart) as supervisor:
            self._serve(supervisor, plan)
            if not is_trained:
                before = suites_of(self._config, "before")
                self._evaluate(supervisor, files, "before", before, version=0)
                self._learn(supervisor, plan)
            after, trained = suites_of(self._config, "after"), self._config.run.steps
            version = 0 if is_trained else trained  # a server numbers what it began with 0
            self._evaluate(supervisor, files, "after", after, version=version)
            self._phase("stopping the policy servers")
            supervisor.stop()

    def _serve(self, supervisor: Supervisor, plan: RunPlan) -> None:
        self._phase("starting the policy servers")
        with self._clock.phase("policy_server"):
            supervisor.start(*specs.policy_servers(plan, self._config, self._folder.logs))

    def _trained_config(self) -> Path:
        """Training is over, but what follows it was cut short: serve what it left."""
        checkpoint = self._folder.last_checkpoint()
        if checkpoint is None:
            raise RunError(f"{self._folder.learner_totals} exists, but no checkpoint is left")
        model = dataclasses.replace(self._config.model, path=str(checkpoint / "hf"))
        config_file = self._folder.path / "config-trained.json"
        save_config(dataclasses.replace(self._config, model=model), config_file)
        return config_file

    def _evaluate(
        self,
        supervisor: Supervisor,
        files: RunFiles,
        when: str,
        suites: tuple[Suite, ...],
        *,
        version: int,
    ) -> None:
        out = self._folder.evaluation / when
        done = self._folder.evaluation / f"{when}.done"
        if not suites or done.exists():
            return
        out.mkdir(parents=True, exist_ok=True)
        asked = self._folder.evaluation / f"suites-{when}.json"
        write_suites(suites, asked)
        self._phase(f"evaluating {when} training")
        self._progress.watch_scores(f"{when} training,", out)
        name = f"evaluate-{when}"
        with self._clock.phase(f"evaluate_{when}"):
            process = evaluation(name, files, suites=asked, version=version, out=out)
            supervisor.spawn(specs.evaluation(process, self._folder.logs))
            supervisor.finish(name)
        self._progress.tick()
        scores = read_scores(out)
        check_scores(scores, out)
        check_weights([scores[suite.name] for suite in suites], version, then=self._hint())
        done.touch()

    def _learn(self, supervisor: Supervisor, plan: RunPlan) -> None:
        self._phase("starting learner and actors")
        self._progress.watch_training(self._folder.metrics, self._config.run.steps)
        self._progress.watch_alerts(self._folder.alerts)
        self._progress.watch_restarts(self._folder.restarts, self._note_restart)
        with self._clock.phase("learn"):
            try:
                self._train(supervisor, plan)
            except StopAsked as asked:
                self._wind_down(supervisor, asked)
                raise
        self._progress.tick()

    def _train(self, supervisor: Supervisor, plan: RunPlan) -> None:
        logs, grace_s = self._folder.logs, self._config.run.grace_s
        supervisor.start(specs.learner(plan, logs, grace_s=grace_s, hint=self._hint))
        actors = specs.actors(plan, logs, grace_s=grace_s, hint=self._hint)
        for actor in actors:
            supervisor.spawn(actor)
        self._phase("training")
        names = [actor.name for actor in actors]
        supervisor.finish(LEARNER, ending=names)
        supervisor.end_restarts()  # a server that starts anew would not have what was trained
        if told_stopped(plan):
            raise StopAsked("the learner was asked to stop")
        supervisor.see_off(*names, patience_s=specs.ACTOR_DRAIN_S)

    def _wind_down(self, supervisor: Supervisor, asked: StopAsked) -> None:
        """The learner has the actors finish or hand back, saves and ends; within the grace."""
        grace_s = self._config.run.grace_s
        self._phase(f"asked to stop ({asked}): saving, for at most {grace_s:g} s")
        if not supervisor.end_in_order(LEARNER):
            self._progress.say(f"the learner had not saved after {grace_s:g} s (run.grace_s)")
        self._progress.tick()

    def _conclude(self) -> Summary:
        state = self._save_state("running")
        summary = build_summary(self._folder, self._config, state)
        write_summary(summary, self._folder.summary)
        write_report(self._folder, self._config, summary)
        return summary

    def _save_state(self, status: Status) -> RunState:
        self._state = dataclasses.replace(self._state, status=status, seconds=self._clock.total())
        self._folder.write_state(self._state)
        return self._state

    def _phase(self, title: str) -> None:
        """Begin something that takes a while: on the screen, and in the state."""
        self._progress.phase(title)
        self._state = dataclasses.replace(self._state, phase=title, phase_at=time.time())
        self._folder.write_state(self._state)

    def _note_restart(self, text: str) -> None:
        """Something is started again: on the screen, and in the summary."""
        self._progress.say(text)
        self._state = dataclasses.replace(self._state, restarts=[*self._state.restarts, text])
        try:
            self._folder.write_state(self._state)
        except OSError as error:  # the run goes on; its end writes all of them
            self._progress.say(f"the state of the run cannot be written: {error}")

    def _say_how_to_resume(self) -> None:
        self._progress.say(f"interrupted; {self._hint()}")

    def _hint(self) -> str:
        return how_to_go_on(self._folder, self._request)


def _setup_seconds() -> float:
    text = os.environ.get(SETUP_SECONDS, "0").strip()
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = nan
    if not 0 <= seconds < inf:
        raise LZeroError(f"{SETUP_SECONDS} must be a number of seconds, got {short(text)}")
    return seconds
