"""What a replay needs, found and checked before anything is started."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.config import Config
from common.config_file import load_config, save_config
from common.errors import ConfigError, InputError
from launch.journal.place import JournalPlace
from launch.journal.starts import DamagedJournalError, Start, choose_start
from launch.journal.steps import Steps
from launch.models.model_checks import check_model
from launch.replay.comparison import Recorded
from launch.replay.variants import OWN, Variant, at_ranks, variant_of
from launch.run.preflight import locate_model
from learner.checkpoints.files import checkpoint_name, finished_checkpoints, step_of
from learner.journal.survey import FlawKind, Survey
from learner.replay.task import ReplayTask


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRequest:
    """The command line of ``lzero replay``.

    Attributes:
        variants: for each, its settings ``section.key=value``.
        ranks: how many; 0 for as many as the run had.
        model: where the folder is now that the run's model.path names; None for there.
    """

    run: Path
    steps: Steps | None = None
    variants: Sequence[Sequence[str]] = ()
    out: Path | None = None
    ranks: int = 0
    model: Path | None = None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What will be played: the journal from a start on, these steps, with these settings."""

    place: JournalPlace
    start: Start
    steps: Steps
    variants: tuple[Variant, ...]
    own: Config
    notes: tuple[str, ...]

    @property
    def same_ranks(self) -> bool:
        """Whether there are as many ranks as the run had."""
        return self.own.learner.ranks == self.variants[0].config.learner.ranks


def plan_replay(request: ReplayRequest, place: JournalPlace, found: Survey) -> ReplayPlan:
    """Choose from where to play, and look at every setting.

    Raises:
        InputError: a file is missing, or the steps or settings cannot be played.
        DamagedJournalError: bytes of the journal are not as they were written.
        ConfigError: a setting is wrong.
    """
    own = _own_config(request, place)
    start = choose_start(place, found, request.steps)
    steps = request.steps or Steps(start.step + 1, start.last)
    damage = [flaw for flaw in found.flaws if flaw.kind is FlawKind.DAMAGED]
    if request.steps is None and damage:
        raise DamagedJournalError(
            f"the journal '{found.folder}' is not as it was written: {damage[0]}; step "
            f"{steps.last + 1} and later ones need that, those before it are played with --steps "
            f"{steps}"
        )
    ranks = request.ranks or own.learner.ranks
    variants = [
        Variant(OWN, own),
        *(variant_of(own, settings) for settings in request.variants),
    ]
    _check_beginning(start, steps, variants)
    return ReplayPlan(
        place=place,
        start=start,
        steps=Steps(start.step + 1, steps.last),
        variants=tuple(replace(v, config=at_ranks(v.config, ranks)) for v in variants),
        own=own,
        notes=tuple(f"note: {flaw}" for flaw in found.flaws),
    )


def _own_config(request: ReplayRequest, place: JournalPlace) -> Config:
    file = place.run.config
    if not file.is_file():
        raise InputError(
            f"'{file}' is not there, and nothing else says how the steps were made; put the "
            "config.json of the run beside its journal"
        )
    try:
        own = load_config(file)
    except ConfigError as error:
        raise InputError(
            f"the run in {place.run.path} was made by another version or with values that are now "
            f"refused, and cannot be played again: {error}; use the version that made it"
        ) from error
    model = locate_model(str(request.model) if request.model else own.model.path)
    if not model.is_dir():
        raise InputError(
            f"the run began with the model folder {model}, which is not there; put it back, or say "
            "with --model FOLDER where it is"
        )
    check_model(model, max_context=own.model.max_context, lora=own.model.lora)
    return replace(own, model=replace(own.model, path=str(model)))


def _check_beginning(start: Start, steps: Steps, variants: Sequence[Variant]) -> None:
    """Variants begin where the run's own state is kept."""
    if len(variants) == 1 or steps.first == start.step + 1:
        others = [v for v in variants[1:] if _brings_critic(v.config, variants[0].config)]
        if others and start.step:
            raise InputError(
                f"--set {others[0].name}: {start} holds no critic, because the run had none; begin "
                "with step 1, where a new one does"
            )
        return
    raise InputError(
        f"--steps {steps}: other settings can begin only where the state of the run is kept, and "
        f"the last that is before step {steps.first} is {start}; give "
        f"--steps {Steps(start.step + 1, steps.last)}"
    )


def _brings_critic(config: Config, own: Config) -> bool:
    return config.objective.advantage == "gae" != own.objective.advantage


def check_comparable(plan: ReplayPlan, recorded: Recorded) -> None:
    """Refuse to train for nothing: the run kept nothing of these steps, and no variant is asked.

    Raises:
        InputError: that is so.
    """
    if len(plan.variants) > 1 or kept_checkpoints(plan):
        return
    if not any(step in plan.steps for step in (*recorded.metrics, *recorded.batches)):
        raise InputError(
            f"there is nothing to compare steps {plan.steps} with: {plan.place.run.path} has "
            f"neither lines of them in metrics.jsonl nor checkpoint "
            f"{checkpoint_name(plan.steps.last)}; put them there, or give settings to compare"
        )


def kept_checkpoints(plan: ReplayPlan) -> list[Path]:
    """Checkpoints of the run in what is played, the earliest first."""
    if not plan.same_ranks:
        return []
    kept = finished_checkpoints(plan.place.run.checkpoints)
    return [path for path in reversed(kept) if step_of(path) in plan.steps]


def task_of(plan: ReplayPlan, out: Path | None, private: Path) -> ReplayTask:
    """What the ranks are told; the settings become files in ``private``."""
    configs = []
    for number, variant in enumerate(plan.variants):
        configs.append(private / f"settings-{number}.json")
        save_config(variant.config, configs[-1])
    start = plan.start
    checkpoint = plan.place.run.checkpoints / checkpoint_name(start.step) if start.step else ""
    outs = [] if out is None else [out.resolve() / name for name in _folder_names(plan.variants)]
    return ReplayTask(
        journal=str(plan.place.folder),
        serial=start.serial,
        checkpoint=str(checkpoint),
        done=start.step,
        last=plan.steps.last,
        configs=tuple(map(str, configs)),
        kept=tuple(map(str, kept_checkpoints(plan))),
        outs=tuple(map(str, outs)),
        result=str(private / "result.json"),
        refusal=str(private / "refusal.txt"),
    )


def _folder_names(variants: Sequence[Variant]) -> list[str]:
    """Below ``--out``, one for each."""
    return ["as-it-was", *(f"variant-{number}" for number in range(1, len(variants)))]
