import ast
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from actors.kernels.sandboxed import plain_cells
from actors.kernels.sandboxed.plain_cells import CellTransformer

CELLS = (Path(__file__).resolve().parents[1] / "data" / "launcher_cells.txt").read_text()
PIECES = [
    *("x", " ", "\n", "\t", "    ", "\r", "\x0c", "\x0b", "\x85", "\u2028", "é", "1", "=", "\\\n"),
    *("%", "!", "?", "%%time", "!ls", "help?", "In [1]: ", ">>> ", "... ", "...:", "/", ",", ";"),
    *("'", '"', '"""', "#", "(", ")", "[", "]", ":", "if x:\n", "def f():\n", "return", "lambda"),
    *("x = %pwd", "x = !ls", "f 1", "a / b", "a ; b", "a , b", "{", "}", "async", "await"),
]


def own(cell: str) -> str:
    return str(TransformerManager().transform_cell(cell))


def assert_agrees(cell: str) -> None:
    """The same text; what IPython refuses already while searching, the compiler may refuse."""
    try:
        expected = own(cell)
    except SyntaxError:
        with pytest.raises(SyntaxError):
            compile(CellTransformer().transform_cell(cell), "cell", "exec", ast.PyCF_ONLY_AST)
    else:
        assert CellTransformer().transform_cell(cell) == expected


@pytest.mark.filterwarnings("ignore:`make_tokens_by_line`")
@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join) | st.text(max_size=40))
@example("x = 1\n  \ny = 2")
@example("x = '''\n   \n'''")
@example("  x = 1")
@example("\n\nx")
@example("a = b \\\n/ c")
@example("x\x0c,f a")
@example("")
def test_a_cell_becomes_what_ipython_makes_of_it(cell: str) -> None:
    assert_agrees(cell)


def test_the_cells_of_the_agreement_test_become_what_ipython_makes_of_them() -> None:
    cells = re.split(r"(?m)^(?:---|===) .*\n", CELLS)
    assert len(cells) > 400
    for cell in cells:
        assert_agrees(cell)


def test_a_plain_cell_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_cells.TransformerManager, "transform_cell", lambda *_: "searched")
    transformer = CellTransformer()
    assert transformer.transform_cell("for page in search('x'):\n    print(page)") != "searched"
    assert transformer.transform_cell("%pwd") == "searched"


def test_a_transformation_that_a_cell_added_is_asked_about_every_cell() -> None:
    transformer = CellTransformer()
    transformer.line_transforms.append(lambda lines: [line.upper() for line in lines])
    assert transformer.transform_cell("x = y") == "X = Y\n"
