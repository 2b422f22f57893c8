"""What ``lzero real`` does before a run, from a TOML file; the run has a configuration of its own.

The recipe of ``launch/presets/real.toml`` is ``launch/presets/stages/real.toml``: of the same name,
in a folder ``stages`` beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from common.config.checks import require
from common.config.ranges import MANY, Range, Section, Share
from common.config_file import from_tables, read_tables
from common.errors import ConfigError
from launch.data.world.demonstrator import Mix
from launch.data.world.questions import KINDS
from launch.models.package_source import PackagedModel
from learner.sft.config import REQUIRED, Sft


@dataclass(frozen=True, kw_only=True, slots=True)
class Untouched(Section):
    """How the model is asked as it came, with the shipped prompt."""

    per_family: Annotated[int, Range("questions", least=0, most=MANY)] = 20
    """Of the held-out questions that the run asks before and after; 0 for none."""
    temperature: Annotated[float, Range("temperature", least=0, most=100)] = 0.0
    """A small model that samples freely writes hardly a sentence; 0 shows the most that it can."""
    max_context: Annotated[int, Range("tokens", least=16, most=1 << 24)] = 2048
    """The shipped prompt is longer than an episode."""
    max_action_tokens: Annotated[int, Range("tokens", least=1, most=1 << 24)] = 160
    """A model that was not taught to be brief thinks at length."""
    format_reminders: Annotated[int, Range("actions", least=0, most=100_000)] = 2
    """Messages without an action that are answered with a reminder of the form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traces(Section):
    """The demonstrations of the warm start; see ``launch.data.world.traces``."""

    count: Annotated[int, Range("traces", least=1, most=MANY)] = 1600
    """Demonstrations."""
    seed: Annotated[int, Range("seed", least=0, most=MANY)] = 0
    """Of worlds, questions and decisions; that of the run is added."""
    practice: Share = 0.0
    """Part that only practises copying and computing."""
    practice_kinds: tuple[str, ...] = ()
    """Kinds of question to practise, repeated by how often; all alike if empty."""

    def check(self) -> None:
        """Kinds are known."""
        for kind in self.practice_kinds:
            require(
                kind in KINDS,
                f"traces.practice_kinds: {kind!r:.40} is none of {', '.join(KINDS)}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class RealRecipe:
    """The stages' settings; model, traces and output of ``sft`` are filled in."""

    package: PackagedModel
    sft: Sft
    untouched: Untouched = field(default_factory=Untouched)
    traces: Traces = field(default_factory=Traces)
    mix: Mix = field(default_factory=Mix)


def recipe_file(preset: Path) -> Path:
    """Where the recipe that belongs to a preset is."""
    return preset.parent / "stages" / preset.name


def read_real_recipe(preset: Path) -> RealRecipe:
    """The recipe beside a preset.

    Raises:
        ConfigError: it is missing, or says something wrong.
    """
    file = recipe_file(preset)
    tables = read_tables(file, called=f"recipe of the stages before {preset.name},")
    tables["sft"] = _with_places(tables.get("sft", {}), file)
    return from_tables(RealRecipe, tables, where=str(file))


def _with_places(sft: Any, file: Path) -> dict[str, Any]:
    if not isinstance(sft, Mapping):
        raise ConfigError(f"{file}: sft must be a table")
    if given := [name for name in REQUIRED if name in sft]:
        raise ConfigError(f"{file}: sft.{given[0]} follows from the run; leave it out")
    return {**sft, **dict.fromkeys(REQUIRED, "")}
