"""What a recipe says: a TOML file with one table per section below."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from common.config.checks import require
from common.config.names import name_fault
from common.config.ranges import MANY, Range, Section, Share
from common.config_file import from_tables, read_tables
from common.errors import ConfigError, InputError
from launch.data.sources.entries import known_source

Script = Literal[
    "latin", "greek", "cyrillic", "hebrew", "arabic", "devanagari", "thai", "hangul", "cjk",
    "hiragana", "katakana",
]  # fmt: skip

LICENCES = {
    "hotpotqa": "CC BY-SA 4.0",
    "2wiki": "Apache-2.0",
    "musique": "CC BY 4.0",
    "nq": "CC BY-SA 3.0",
    "triviaqa": "Apache-2.0 (the questions belong to their authors)",
    "popqa": "MIT",
    "simpleqa": "MIT",
    "bamboogle": "MIT",
    "gsm8k": "MIT",
    "math500": "MIT",
    "humaneval": "MIT",
    "mbpp": "CC BY 4.0",
}
"""As their authors published them."""
UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSettings(Section):
    """How much is taken, and what it must not overlap with."""

    AT: ClassVar[str] = "mix"

    tasks: Annotated[int, Range("tasks", least=1, most=MANY)]
    """Training tasks, at most."""
    heldout: Annotated[int, Range("tasks", least=0, most=MANY)] = 0
    """Tasks set aside that share no entity with those for training, at most; 0 for none."""
    seed: Annotated[int, Range("seed", least=0, most=MANY)] = 0
    """Which tasks are taken, and their order."""
    evaluation: tuple[str, ...] = ()
    """Task files on which models will be evaluated: what overlaps with their questions is left
    out."""
    ngram: Annotated[int, Range("words", least=2, most=100)] = 13
    """So many words of a question in a row, or half of them together with the same answer, that
    are also in a question of ``evaluation``, are an overlap."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters(Section):
    """Which tasks are taken at all."""

    min_characters: Annotated[int, Range("characters", least=1, most=MANY)] = 1
    """Of a question."""
    max_characters: Annotated[int, Range("characters", least=1, most=MANY)] = 100_000
    """Of a question."""
    max_answer_characters: Annotated[int, Range("characters", least=1, most=MANY)] = 100_000
    """Of the shortest gold answer."""
    kinds: tuple[str, ...] = ()
    """Task types; none for all."""
    scripts: tuple[Script, ...] = ()
    """At least nine of ten letters of a question are of these scripts; none for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difficulty(Section):
    """How often a model solves the tasks that are taken."""

    results: str = ""
    """JSON lines with ``task_id`` and ``pass_rate``, or with one line per attempt, with
    ``exact_match`` or ``scores.exact_match``; empty for no such choice. Tasks without are left
    out."""
    min: Share = 0.0
    """Least share of attempts that are right."""
    max: Share = 1.0
    """Largest."""

    def check(self) -> None:
        """There is something between the bounds."""
        require(
            self.min <= self.max,
            f"difficulty.min ({self.min:g}) must be at most difficulty.max ({self.max:g})",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MixSource(Section):
    """One task file, made by ``lzero tasks convert``."""

    AT: ClassVar[str] = "sources"

    name: str
    """Of its row in the manifest."""
    path: str
    """Task file."""
    weight: Annotated[float, Range("parts", above=0, most=1e9)] = 1.0
    """Its part of all tasks; where it has too few, the others have more."""
    corpus: str = ""
    """Its passages, JSON lines; they become part of the mix's."""
    licence: str = ""
    """Of its data; empty for that of the published set of this name."""
    published: str = ""
    """Where it can be had, for who does not have it."""

    def check(self) -> None:
        """It can be told apart and read."""
        fault = name_fault(self.name)
        require(not fault, f"sources: name must be {fault}, got {self.name!r}")
        require(bool(self.path), f"sources '{self.name}': path must be that of a task file, got ''")

    @property
    def known_licence(self) -> str:
        """As the recipe says, or else that of the published set; ``unknown`` for others."""
        known = LICENCES.get(known_source(self.name) or "", UNKNOWN_LICENCE)
        return self.licence or known


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A whole recipe. Relative paths start from the folder in which ``lzero`` is called."""

    mix: MixSettings
    sources: tuple[MixSource, ...]
    filters: Filters = field(default_factory=Filters)
    difficulty: Difficulty = field(default_factory=Difficulty)

    @property
    def inputs(self) -> list[str]:
        """Every file that it names."""
        of_sources = [path for source in self.sources for path in (source.path, source.corpus)]
        named = [*of_sources, *self.mix.evaluation, self.difficulty.results]
        return list(dict.fromkeys(filter(None, named)))


def read_recipe(file: Path) -> Recipe:
    """A recipe, all of whose files are there.

    Raises:
        ConfigError: it is missing or malformed; names the key.
        InputError: files that it names are missing; lists them with where they are published.
    """
    recipe = from_tables(Recipe, read_tables(file, called="recipe"), where=str(file))
    if not recipe.sources:
        raise ConfigError(f"{file}: there is no source; add a table [[sources]]")
    names = [source.name for source in recipe.sources]
    for name in names:
        require(names.count(name) == 1, f"{file}: two sources are called '{name}'")
    published = {source.path: source.published for source in recipe.sources}
    if missing := [path for path in recipe.inputs if not Path(path).is_file()]:
        listed = "; ".join(
            path + (f" (published at {published[path]})" if published.get(path) else "")
            for path in missing
        )
        raise InputError(
            f"{file} names files that are not there: {listed}. Fetch the sets, and make the files "
            "with lzero tasks convert FILE --out FOLDER"
        )
    return recipe
