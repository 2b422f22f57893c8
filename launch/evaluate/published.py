"""Question sets, suites of them, and published results: what ``published.toml`` holds."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """Shares of one system by the name of the set."""

    name: str
    shares: dict[str, float]

    def mean(self, sets: tuple[str, ...]) -> float:
        """Over those ``sets``, each counted once."""
        return fmean(self.shares[one] for one in sets)


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """Results of one publication; ``measure`` is what of ours compares with them."""

    name: str
    source: str
    measure: str
    note: str
    sets: tuple[str, ...]
    rows: tuple[PublishedRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Publications:
    """Everything in the file: set names by suite, title and home by set, and tables."""

    suites: dict[str, tuple[str, ...]]
    titles: dict[str, str]
    homes: dict[str, str]
    tables: tuple[PublishedTable, ...]


@cache
def published() -> Publications:
    """The file, read once."""
    text = files("launch.evaluate").joinpath("published.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    return Publications(
        suites={name: tuple(sets) for name, sets in data["suites"].items()},
        titles={name: one["title"] for name, one in data["sets"].items()},
        homes={name: one["home"] for name, one in data["sets"].items()},
        tables=tuple(
            PublishedTable(
                name=table["name"],
                source=table["source"],
                measure=table["measure"],
                note=table["note"],
                sets=tuple(table["sets"]),
                rows=tuple(
                    PublishedRow(name=name, shares=dict(zip(table["sets"], shares, strict=True)))
                    for name, *shares in table["rows"]
                ),
            )
            for table in data["tables"]
        ),
    )


def tables_beside(sets: tuple[str, ...]) -> tuple[PublishedTable, ...]:
    """The tables that say something about any of these sets."""
    return tuple(table for table in published().tables if set(table.sets) & set(sets))
