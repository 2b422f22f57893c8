"""A probe: one attack, the family it belongs to, and how it must end at each level."""

import ast
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from actors.kernels.probes import inside
from actors.kernels.probes.inside import Target

LEVELS = ("A-forked", "B-cold", "B-jupyter")
Attack = Callable[[Target], str]
_VERDICTS = ("blocked: ", "ESCAPED: ", "broken: ")


class Family(StrEnum):
    """What an attack goes for."""

    FILES = "files"
    SECRETS = "secrets"
    NETWORK = "network"
    SIBLINGS = "siblings"
    PRIVILEGES = "privileges"
    KERNEL = "kernel interfaces"
    RESOURCES = "resources"
    PROTOCOL = "protocol"


class ProbeOutcome(StrEnum):
    """How an attack ended, seen from the host."""

    BLOCKED = "blocked"
    """The cell says so; the kernel lives on."""
    CAPPED = "capped"
    """Output was cut at the limit; the kernel lives on."""
    TIMED_OUT = "timed out"
    """The cell was interrupted; the kernel lives on."""
    KILLED = "killed"
    """The host killed the kernel, or it killed itself."""
    ESCAPED = "ESCAPED"
    """The attack got hold of something, or harmed a sibling."""
    BROKEN = "broken"
    """The attack itself failed, which proves nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One attack.

    Attributes:
        name: for people, from the function's name.
        what: one line on what is tried.
        source: the function, as a cell defines it; ``function`` is its name there.
        expected: acceptable outcomes, at the levels that ``expected_at`` does not name.
        timeout_s: wall time of the cell.
        control: run as a plain process on an ordinary Linux host it escapes, and harms nothing;
            that is how the attack itself is tested.
        slow: takes seconds.
        keeps: it keeps what it took; meanwhile a sibling must get the same, and kernels start.
    """

    name: str
    family: Family
    what: str
    source: str
    function: str
    expected: frozenset[ProbeOutcome]
    expected_at: Mapping[str, frozenset[ProbeOutcome]] = field(default_factory=dict)
    timeout_s: float = 10.0
    control: bool = False
    slow: bool = False
    keeps: bool = False

    @property
    def lethal(self) -> bool:
        """Whether the kernel may be gone afterwards."""
        return ProbeOutcome.KILLED in self.expected

    @property
    def cell(self) -> str:
        """The attack as a cell; its last line is the verdict."""
        return f"{self.source}\njudge({self.function}, target)\n"

    def acceptable(self, level: str) -> frozenset[ProbeOutcome]:
        """The outcomes that are fine at ``level``."""
        return self.expected_at.get(level, self.expected)


def attack(
    family: Family,
    *expected: ProbeOutcome,
    at: Mapping[str, tuple[ProbeOutcome, ...]] | None = None,
    timeout_s: float = 10.0,
    control: bool = False,
    slow: bool = False,
    keeps: bool = False,
) -> Callable[[Attack], Probe]:
    """Make a probe of a function that returns what it got hold of; see ``inside.judge``.

    Args:
        family: what the attack goes for.
        expected: acceptable outcomes; blocked by default.
        at: other outcomes at single levels.
        timeout_s: wall time of the cell.
        control: it escapes, harmlessly, without a sandbox.
        slow: it takes seconds.
        keeps: see ``Probe``.
    """

    def make(function: Attack) -> Probe:
        return Probe(
            name=function.__name__.replace("_", " "),
            family=family,
            what=(function.__doc__ or "").strip().splitlines()[0],
            source=_source(function),
            function=function.__name__,
            expected=frozenset(expected or (ProbeOutcome.BLOCKED,)),
            expected_at={level: frozenset(outcomes) for level, outcomes in (at or {}).items()},
            timeout_s=timeout_s,
            control=control,
            slow=slow,
            keeps=keeps,
        )

    return make


def opening_cell(target: Target) -> str:
    """The first cell of a kernel that probes run in."""
    text = Path(inside.__file__).read_text()
    return f"{text}\nimport json\ntarget = Target(**json.loads({json.dumps(asdict(target))!r}))\n"


def verdict_of(output: str) -> tuple[ProbeOutcome, str]:
    """The outcome that the last line of a cell's output claims, and its reason."""
    lines = [line for line in output.splitlines() if line.startswith(_VERDICTS)]
    if not lines:
        return ProbeOutcome.BROKEN, "the cell gave no verdict: " + output.strip()[-300:]
    word, _, reason = lines[-1].partition(": ")
    return ProbeOutcome(word), reason


def _source(function: Attack) -> str:
    """The function without its decorator, after the imports of its module."""
    module = ast.parse(inspect.getsource(inspect.getmodule(function) or inside))
    own = inside.__name__.rpartition(".")[0]
    imports: list[ast.stmt] = [
        statement
        for statement in module.body
        if isinstance(statement, ast.Import)
        or (isinstance(statement, ast.ImportFrom) and not (statement.module or "").startswith(own))
    ]
    definition = next(
        statement
        for statement in module.body
        if isinstance(statement, ast.FunctionDef) and statement.name == function.__name__
    )
    definition.decorator_list = []
    definition.body = definition.body[1:]
    return ast.unparse(ast.Module([*imports, definition], []))
