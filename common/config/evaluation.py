"""Held-out evaluation: which questions are asked when, and under which conditions."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from common.config.checks import require
from common.config.names import name_fault
from common.config.ranges import MANY, Range, Section

When = Literal["before", "during", "after"]

DURING_PER_FAMILY = 32
"""Questions per family of a short evaluation while training, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSuite(Section):
    """One set of held-out questions, asked under one condition."""

    AT: ClassVar[str] = "evaluation.suites"

    name: str
    """Of its scores; ``heldout`` is what reports draw, ``greedy`` and ``control`` stand beside."""
    tasks: str
    """Task file; see docs/tasks.md for the format."""
    corpus: str = ""
    """Search index, made by ``lzero index``; empty for ``tasks.train_corpus``."""
    when: tuple[When, ...] = ("before", "after")
    """Before training, after it, and ``during`` it every ``evaluation.during_every`` steps (one
    suite only, the first 32 questions of each family; with the embedded world instead of its
    own)."""
    per_family: Annotated[int, Range("questions", least=0, most=MANY)] = 0
    """Questions of each value of the task label ``family``, in file order; 0 for all."""
    temperature: Annotated[float, Range("temperature", least=0, most=100)] = 1.0
    """Sampling temperature; 0 takes the likeliest token."""
    search_disabled: bool = False
    """Answer every search with "No results." (a control experiment)."""

    def check(self) -> None:
        """It has a name that a file can have, and questions."""
        fault = name_fault(self.name)
        require(not fault, f"evaluation.suites: name must be {fault}, got {self.name!r}")
        at = f"evaluation.suites '{self.name}'"
        require(bool(self.tasks), f"{at}: tasks must be the path of a task file, got ''")
        require(bool(self.when), f"{at}: when must name 'before', 'during' or 'after', got []")
        require(
            not (self.search_disabled and "during" in self.when),
            f"{at}: search_disabled and 'during' in when exclude each other: while it trains, a "
            "run has one search for all episodes",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation(Section):
    """Held-out evaluation: counts for the embedded world, and suites of your own."""

    per_family: Annotated[int, Range("questions", least=0, most=MANY)] = 400
    """Embedded world: held-out questions per family (one-hop, two-hop) before and after training,
    sampled; 0 for none."""
    greedy_per_family: Annotated[int, Range("questions", least=0, most=MANY)] = 200
    """Embedded world: the same at temperature 0, and afterwards other wordings and unseen names;
    0 for none."""
    control: Annotated[int, Range("questions", least=0, most=MANY)] = 200
    """Embedded world: questions per family with search switched off, after training; 0 for none."""
    during_every: Annotated[int, Range("steps", least=0, most=MANY)] = 10
    """Steps between short evaluations while training; 0 for none."""
    during_pinned: bool = False
    """A short evaluation asks one weight version, and the next publish waits for it. Else training
    goes on meanwhile, and its last episodes may be of a newer version than its first."""
    suites: tuple[EvaluationSuite, ...] = ()
    """Suites of your own, one table ``[[evaluation.suites]]`` each."""

    @property
    def during(self) -> EvaluationSuite | None:
        """The suite that is also asked while training, if any is."""
        asked = (suite for suite in self.suites if "during" in suite.when)
        return next(asked, None) if self.during_every else None

    def check(self) -> None:
        """Suites can be told apart."""
        names = [suite.name for suite in self.suites]
        for name in names:
            require(names.count(name) == 1, f"evaluation.suites: two are called '{name}'")
        during = [suite.name for suite in self.suites if "during" in suite.when]
        require(
            len(during) <= 1,
            f"evaluation.suites: only one can be asked during training, got {', '.join(during)}",
        )
