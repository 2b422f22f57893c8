"""Every field of a record says what it is about, and in its docstring what it means."""

import dataclasses

from common.step_record import Scope, StepRecord, fields_of
from tests.docstrings import explained

NAMES = [field.name for field in dataclasses.fields(StepRecord)]


def test_every_field_says_what_it_is_about() -> None:
    assert sorted(name for scope in Scope for name in fields_of(scope)) == sorted(NAMES)
    assert fields_of(Scope.RUN) == ("seconds", "trajectories_trained", "dropped")


def test_every_field_is_explained() -> None:
    assert explained(StepRecord) == set(NAMES)
