"""Cells that are Python as they stand, so that IPython need not look for its own syntax in them.

The search is a quarter of the CPU time of a short cell: it tokenizes the whole of it.
"""

import re

from IPython.core.inputtransformer2 import TransformerManager

_PERHAPS_MORE = re.compile(
    r"""
      [%!?]                                   # magics, system commands, help
    | In\ \[                                  # a prompt of IPython
    | ^[ \t]*(?: [,;/] | >>> | \.\.\. )       # quoting calls, a prompt of Python
    | \A\s | ^[ \t]+$                         # indented as a whole, or lines that dedenting empties
    | [^\n\t\x20-\x7e\x80-\U0010ffff]         # what ends a line for splitlines() alone
    | [\x85\u2028\u2029]
    """,
    re.MULTILINE | re.VERBOSE,
)


class CellTransformer(TransformerManager):  # type: ignore[misc]
    """IPython's transformer of cells, asked only about those that may need it."""

    def __init__(self) -> None:
        """With IPython's own transformations; whoever adds some is not overlooked."""
        super().__init__()
        self._own = self._transforms()

    def transform_cell(self, cell: str) -> str:
        """The cell in plain Python, ending with a newline."""
        if _PERHAPS_MORE.search(cell) or self._transforms() != self._own:
            return str(super().transform_cell(cell))
        return cell if cell.endswith("\n") else cell + "\n"

    def _transforms(self) -> list[object]:
        return [*self.cleanup_transforms, *self.line_transforms, *self.token_transformers]
