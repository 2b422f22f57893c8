"""The range and the unit of every number in the configuration, declared beside the field.

A section is a frozen dataclass below ``Section``; its numbers are annotated, for instance
``cell_timeout_s: Annotated[float, Range("s", above=0, most=DAY_S)] = 10.0``. What is declared is
checked whenever a section is made, from a file or in code. Neither NaN nor infinity lies in any
range, but for infinity where the range says ``infinite``.
"""

import functools
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Annotated, Any, ClassVar, Literal

from common.config.spelling import toml_value
from common.errors import ConfigError

HOUR_S, DAY_S = 3600.0, 86400.0
MANY = 2**31 - 1
"""More of anything than one run can have, and what every library still takes as an integer."""


@dataclass(frozen=True, slots=True)
class Range:
    """From ``least`` (or above ``above``) to ``most`` (or below ``below``), in ``unit``."""

    unit: str
    least: float = -inf
    most: float = inf
    above: float = -inf
    below: float = inf
    infinite: bool = False
    """Infinity may be given, for no limit."""

    def fault(self, value: float) -> str:
        """What ``value`` must be and is not; empty if it lies in the range."""
        if value == inf and self.infinite:
            return ""
        if value != value or value in (inf, -inf):  # isfinite refuses very large whole numbers
            return "a finite number"
        if value < self.least:
            return f"at least {_plain(self.least)}"
        if value <= self.above:
            return f"above {_plain(self.above)}"
        if value > self.most:
            return f"at most {_plain(self.most)}"
        if value >= self.below:
            return f"below {_plain(self.below)}"
        return ""

    def describe(self) -> str:
        """Unit and range in words, for example ``s, above 0 and at most 86400``."""
        return f"{self.unit}, {self.bounds()}"

    def bounds(self) -> str:
        """The range in words, for example ``above 0 and at most 86400``."""
        parts = [
            f"{word} {_plain(bound)}"
            for word, bound in (
                ("at least", self.least),
                ("above", self.above),
                ("at most", self.most),
                ("below", self.below),
            )
            if isfinite(bound)
        ]
        text = " and ".join(parts) or "any finite number"
        return f"{text}, or inf" if self.infinite else text


Share = Annotated[float, Range("share", least=0, most=1)]
"""A part of a whole."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Marks a field that is no key: files have its default, only code gives it another value.

    A test or an attack that should be over soon does, for instance; no user had a reason to.
    """


FIXED = Fixed()


class Section:
    """One table of the configuration: checks its numbers, then what ``check`` adds."""

    __slots__ = ()
    AT: ClassVar[str] = ""
    """The table's name; empty where it is the class' name in lower case."""

    def __init_subclass__(cls) -> None:
        """See to it that no section goes around the check of its ranges."""
        if "__post_init__" in vars(cls):
            raise TypeError(f"{cls.__name__} must define check instead of __post_init__")

    def __post_init__(self) -> None:
        """Check every range, then ``check``.

        Raises:
            ConfigError: names section and key, what was expected and what came.
        """
        for name, value, allowed in numbers_of(self):
            fault = allowed.fault(value)
            if fault:
                key = f"{self.table()}.{name}"
                raise ConfigError(
                    f"{key} must be {fault}, got {short(value)} ({allowed.describe()})"
                )
        self.check()

    def check(self) -> None:
        """Check what a range of one number cannot say; for subclasses.

        Raises:
            ConfigError: names section and key, what was expected and what came.
        """

    @classmethod
    def table(cls) -> str:
        """The table's name in a file."""
        return cls.AT or re.sub(r"(?<!^)([A-Z])", r"_\1", cls.__name__).lower()


def numbers_of(section: Section) -> Iterator[tuple[str, float, Range]]:
    """Every number of a section with its place and its range; other values are left out."""
    kind: Any = type(section)  # mypy takes a class for no hashable thing
    for name, hint in annotations_of(kind).items():
        yield from _numbers(name, getattr(section, name), hint)


@functools.cache
def annotations_of(kind: type[Section]) -> Mapping[str, Any]:
    """The annotations of a section's fields, with the ranges."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "AT"}


def kind_of(hint: Any) -> str:
    """What an annotation allows, in words."""
    names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    others = {tuple: "a list", list: "a list", Literal: "a string"}
    return names.get(hint) or others.get(typing.get_origin(hint) or hint) or "a table"


def short(value: object) -> str:
    """A value that may be huge as a file has it, in at most 80 characters; text in quotes."""
    try:
        is_plain = isinstance(value, str) and value.isprintable() and "'" not in value
        text = f"'{value}'" if is_plain else toml_value(value)
    except (ValueError, RecursionError):  # a whole number of more than 4,300 digits; a deep list
        return f"{kind_of(type(value))} too large to show"
    return text if len(text) <= 80 else f"{text[:60]} ... ({len(text)} characters)"


def is_key(hint: Any) -> bool:
    """Whether a file may give a field with this annotation a value."""
    return FIXED not in getattr(hint, "__metadata__", ())


def _numbers(name: str, value: Any, hint: Any) -> Iterator[tuple[str, float, Range]]:
    if typing.get_origin(hint) is Annotated:
        _, *extras = typing.get_args(hint)
        for allowed in extras:
            if isinstance(allowed, Range):
                yield name, value, allowed
    elif typing.get_origin(hint) is tuple:
        hints = typing.get_args(hint)
        hints = hints[:1] * len(value) if hints[1:] == (Ellipsis,) else hints
        for index, (item, inner) in enumerate(zip(value, hints, strict=False)):
            yield from _numbers(f"{name}[{index}]", item, inner)
    elif typing.get_origin(hint) is dict:
        inner = typing.get_args(hint)[1]
        for key, item in value.items():
            yield from _numbers(f"{name}.{key}", item, inner)


def _plain(bound: float) -> str:
    return f"{bound:.0f}" if bound == int(bound) and abs(bound) < 1e12 else f"{bound:g}"
