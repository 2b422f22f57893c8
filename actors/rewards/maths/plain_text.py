"""Mathematics as people type it, in LaTeX: Unicode signs, ``sqrt(2)``, ``pi``, ``<=``. Pure."""

import re
import unicodedata

_SIGNS = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{FULLWIDTH HYPHEN-MINUS}": "-",
    "\N{MULTIPLICATION SIGN}": r"\times ",
    "\N{MIDDLE DOT}": r"\cdot ",
    "\N{DOT OPERATOR}": r"\cdot ",
    "\N{DIVISION SIGN}": "/",
    "\N{FRACTION SLASH}": "/",
    "\N{LESS-THAN OR EQUAL TO}": r"\le ",
    "\N{GREATER-THAN OR EQUAL TO}": r"\ge ",
    "\N{NOT EQUAL TO}": r"\ne ",
    "\N{PLUS-MINUS SIGN}": r"\pm ",
    "\N{UNION}": r"\cup ",
    "\N{INTERSECTION}": r"\cap ",
    "\N{ELEMENT OF}": r"\in ",
    "\N{INFINITY}": r"\infty ",
    "\N{DEGREE SIGN}": r"^\circ ",
    "\N{EMPTY SET}": r"\emptyset ",
    "\N{SQUARE ROOT}": "sqrt",
    "\N{NO-BREAK SPACE}": " ",
    "\N{NARROW NO-BREAK SPACE}": " ",
    "\N{THIN SPACE}": " ",
}
_GREEK = ("alpha", "beta", "gamma", "delta", "theta", "lambda", "mu", "pi", "sigma", "phi", "omega")
_SIGNS |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {n.replace('lambda', 'lamda')}"): rf"\{n} "
    for n in _GREEK
}
_TRANSLATION = str.maketrans(_SIGNS)

_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"
_LOWERED = "\u2080\u2081\u2082\u2083\u2084\u2085\u2086\u2087\u2088\u2089"
_RAISED_RUN = re.compile(f"[{_RAISED}]+")
_LOWERED_RUN = re.compile(f"[{_LOWERED}]+")
_FUNCTIONS = (
    "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|cup|pm|infty"
)

_REWRITES = (
    (re.compile(r"<=|=<"), r"\\le "),
    (re.compile(r">=|=>"), r"\\ge "),
    (re.compile(r"\+/-|\+-"), r"\\pm "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*"), r"\\cdot "),
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"(?<![\\A-Za-z])sqrt\s*(\d+|[A-Za-z])"), r"\\sqrt{\1}"),
    (re.compile(rf"(?<![\\A-Za-z])({_FUNCTIONS})(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"\^\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r",?\s+(?:and|or)\s+"), ", "),
)


def as_latex(text: str) -> str:
    """``text`` with what is not LaTeX in it written as LaTeX.

    A raised digit becomes an exponent, and never part of the number before it.
    """
    text = _RAISED_RUN.sub(lambda run: f"^{{{_digits(run.group())}}}", text)
    text = _LOWERED_RUN.sub(lambda run: f"_{{{_digits(run.group())}}}", text)
    text = "".join(map(_fraction, text)).translate(_TRANSLATION)
    text = unicodedata.normalize("NFKC", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text


def _digits(run: str) -> str:
    return unicodedata.normalize("NFKC", run).replace("\N{MINUS SIGN}", "-")


def _fraction(character: str) -> str:
    """A character such as one half as a fraction of its own."""
    parts = unicodedata.normalize("NFKC", character).split("\N{FRACTION SLASH}")
    return rf"\frac{{{parts[0]}}}{{{parts[1]}}}" if len(parts) == 2 and all(parts) else character
