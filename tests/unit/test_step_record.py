"""Every field of a record says what it is about, and in its docstring what it means."""

import ast
import dataclasses
import inspect

import pytest

from common.step_record import Scope, StepRecord, fields_of, scope_of

NAMES = [field.name for field in dataclasses.fields(StepRecord)]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_says_what_it_is_about(name: str) -> None:
    assert scope_of(name) in Scope


def test_what_counts_from_the_beginning_is_known() -> None:
    assert fields_of(Scope.RUN) == ("seconds", "trajectories_trained", "dropped")
    assert fields_of(Scope.MEAN) == ("trajectories_per_s_mean",)
    assert fields_of(Scope.EARLIER) == ("heldout", "publish_s", "paused_s")
    assert sum(len(fields_of(scope)) for scope in Scope) == len(NAMES)


def test_every_field_is_explained() -> None:
    (tree,) = ast.parse(inspect.getsource(StepRecord)).body
    assert isinstance(tree, ast.ClassDef)
    explained = {
        field.target.id
        for field, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
    }

    assert explained == set(NAMES)


def test_an_unknown_field_has_no_scope() -> None:
    with pytest.raises(KeyError):
        scope_of("nothing")
