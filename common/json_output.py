"""Strict JSON: what every reader takes, also ``jq``, a browser and other languages.

Python's own writer puts out ``NaN`` and ``Infinity``, which are no JSON. Here a number that is not
finite is written as a string, ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, as protocol buffers
do; who knows that a value is a number reads it back with ``as_number``.
"""

import json
import re
from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

_UNWRITABLE = re.compile("[\ud800-\udfff\u2028\u2029\x85]")
_NAMES = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def json_text(value: Any, *, indent: int | None = None, readable: bool = False) -> str:
    """``value`` as strict JSON.

    Args:
        value: what has a JSON form; tuples become lists.
        indent: as for ``json.dumps``.
        readable: leave letters of other scripts as they are, to be written as UTF-8; what no
            encoding takes, or what a reader of lines takes for their end, is escaped all the same.

    Raises:
        TypeError: something in it has no JSON form.
    """
    try:
        text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=not readable)
    except ValueError:  # dumps looks at every number faster than we do
        finite = _finite(value)
        text = json.dumps(finite, indent=indent, allow_nan=False, ensure_ascii=not readable)
    if text.isascii():  # much faster than to look for what is not
        return text
    return _UNWRITABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def as_number(value: Any) -> Any:
    """A float for what stands for a number in JSON; anything else as it is."""
    if isinstance(value, str):
        return _NAMES.get(value, value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not isfinite(value):
        return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
