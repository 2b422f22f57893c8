"""The numbers that code of the user's returns: what is taken for one, and what is not."""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from numbers import Real
from typing import Any

LARGEST = 1e6
"""Rewards and measures beyond it are mistakes: nothing else would count beside them."""


def checked_number(value: object) -> float:
    """``value`` as a float; True is 1 and False is 0, and scalars of numpy and torch are numbers.

    Raises:
        ValueError: it is not one, not finite, or too large; the text says what came.
    """
    item: Callable[[], Any] | None = getattr(value, "item", None)
    plain = item() if callable(item) and not isinstance(value, Real) else value
    if not isinstance(plain, Real):
        raise ValueError(f"{_shown(value)}, which is no number")
    try:
        number = float(plain)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{_shown(value)}, which is not finite")
    if abs(number) > LARGEST:
        raise ValueError(f"{_shown(value)}, which is beyond {LARGEST:g}; scale it down")
    return number


def checked_numbers(values: object, count: int) -> list[float]:
    """``count`` numbers out of anything that holds as many.

    Raises:
        ValueError: there are more or fewer, or one is none.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ValueError(f"{_shown(values)}; episode.on_last_step makes a list of one")
    given = list(islice(values, count + 1))  # never more: it may be without end
    if len(given) != count:
        raise ValueError(f"{'more' if len(given) > count else len(given)}: {_shown(given)}")
    return [checked_number(value) for value in given]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
