"""Equality of two formulas by math-verify, which parses LaTeX and asks sympy.

For one process with limits (``worker.py``): sympy may need any time and memory. What is parsed is
the whole text; math-verify's search for an expression in a text is not used, as it takes the last
of several.
"""

import logging
from functools import lru_cache
from typing import Any

from latex2sympy2_extended.latex2sympy2 import (
    ConversionConfig,
    NormalizationConfig,
    latex2sympy,
    normalize_latex,
)
from math_verify.grader import should_treat_as_complex, verify
from sympy import Basic, Expr, MatrixBase

_NORMALISED = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
)
_CONVERTED = ConversionConfig(lowercase_symbols=False)
_DIGITS = 10
"""Behind the point, of a decimal compared with a formula."""
_CLOSE = 1e-9

logging.getLogger("math_verify").setLevel(
    logging.CRITICAL
)  # warns that it has no deadline of its own


@lru_cache(256)
def parsed(latex: str) -> Any:
    """The sympy object of a formula; None where it cannot be parsed."""
    text = normalize_latex(latex, _NORMALISED)
    try:
        return latex2sympy(
            text,
            is_real=not should_treat_as_complex(text),
            convert_degrees=False,
            normalization_config=None,
            conversion_config=_CONVERTED,
        )
    except Exception:  # the parser raises what it likes
        return None


def equal_formulas(given: str, gold: str) -> bool:
    """Whether two formulas are equal; False where one cannot be parsed."""
    left, right = parsed(given), parsed(gold)
    if not isinstance(left, Basic | MatrixBase) or not isinstance(right, Basic | MatrixBase):
        return False
    equal = verify(
        right,
        left,
        float_rounding=_DIGITS,
        allow_set_relation_comp=True,
        timeout_seconds=None,
    )
    return bool(equal) and not _far_apart(left, right)


def _far_apart(left: Any, right: Any) -> bool:
    """Whether two constants differ by more than rounding: tiny ones all round to zero."""
    if not (isinstance(left, Expr) and isinstance(right, Expr)):
        return False
    if left.free_symbols or right.free_symbols:
        return False
    try:
        one, other = complex(left.doit().evalf(30)), complex(right.doit().evalf(30))
    except (TypeError, ValueError, OverflowError):
        return False
    return abs(one - other) > _CLOSE * max(abs(one), abs(other))
