"""Which fields of a class are explained in a docstring below them."""

import ast
import inspect


def explained(kind: type) -> set[str]:
    """Names of the fields of a dataclass, at the top of its module, that have a docstring."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id
        for field, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }
