"""Every field of a record says what it is about, and in its docstring what it means."""

import ast
import inspect
import typing

from common.step_record import Scope, StepRecord

HINTS = typing.get_type_hints(StepRecord, include_extras=True)


def test_every_field_says_what_it_is_about() -> None:
    for name, hint in HINTS.items():
        scopes = [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Scope)]
        assert len(scopes) == 1, f"{name} says {scopes}"


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

    assert explained == set(HINTS)
