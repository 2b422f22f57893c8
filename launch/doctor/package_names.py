"""Finds out whether another package hides one of ours. Standard library only.

Our four top-level packages have plain names, so a stray folder or an unlucky dependency could
take their place.
"""

import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

OWN_PACKAGES = ("actors", "common", "launch", "learner")
HOME = Path(__file__).resolve().parents[2]
"""The folder that our packages lie in."""


@dataclass(frozen=True)
class Clash:
    """A name of ours that means something else."""

    name: str
    place: str

    fix = "remove or rename it, or use another environment"

    def __str__(self) -> str:
        """What is wrong."""
        return f"package '{self.name}' is {self.place}, not {HOME / self.name}"


def find_clashes(path: list[str] | None = None) -> list[Clash]:
    """Names of ours that Python would take from elsewhere.

    Args:
        path: where Python looks for modules; ``sys.path`` by default.
    """
    clashes = []
    for name in OWN_PACKAGES:
        found = PathFinder.find_spec(name, sys.path if path is None else path)
        place = _place_of(found)
        if place is None or Path(place).resolve() != HOME / name:
            clashes.append(Clash(name, place or "nowhere to be found"))
    return clashes


def refuse_clashes() -> None:
    """End the program, with one line, if one of our names means something else.

    Call it before anything of ``common``, ``actors`` or ``learner`` is imported.
    """
    if clashes := find_clashes():
        lines = [f"lzero: {clash}; {clash.fix}" for clash in clashes]
        sys.exit("\n".join(lines))


def _place_of(found: ModuleSpec | None) -> str | None:
    """Folder of a package, or file of a module."""
    if found is None:
        return None
    return next(iter(found.submodule_search_locations or []), found.origin)
