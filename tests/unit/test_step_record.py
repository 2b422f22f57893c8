"""Every field of a record says what it is about, and in its docstring what it means."""

import typing

from common.telemetry.step_record import Scope, StepRecord
from tests.docstrings import explained

HINTS = typing.get_type_hints(StepRecord, include_extras=True)


def test_every_field_says_what_it_is_about() -> None:
    for name, hint in HINTS.items():
        scopes = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Scope)]
        assert len(scopes) == 1, f"{name} says {scopes}"


def test_every_field_is_explained() -> None:
    assert explained(StepRecord) == set(HINTS)
