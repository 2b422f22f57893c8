"""What runs in the sandboxes: its source is a cell there, so that it imports nothing of ours.

Answer and tests live in two sandboxes, and only data crosses: arguments to the answer's function,
and what it returns, as JSON of tagged lists. So the answer sees neither the tests nor what they
expect, and what it returns is a value of a plain type, whatever it did to comparisons.
"""

import builtins
import json
import sys
import types
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from decimal import Decimal
from fractions import Fraction
from typing import Any

MOST_ITEMS = 200_000
"""Of an iterator that an answer returns."""


_MISLEADING = (AssertionError, StopIteration, StopAsyncIteration)
"""Exceptions that an answer may not raise in its tests: ``map`` over it would end without a word,
and nothing be compared."""


class Other:
    """Stands for an object that cannot cross, such as a match; equals nothing but itself."""

    def __init__(self, truth: bool) -> None:
        """Be true or false."""
        self._truth = truth

    def __bool__(self) -> bool:
        """As the object was."""
        return self._truth


def encoded(value: Any) -> Any:
    """``value`` as JSON holds it; of what is no plain data only whether it is true."""
    if value is None or isinstance(value, bool):
        return value if value is None else bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return ["i", hex(value)]
    if isinstance(value, float):
        return ["f", float(value).hex()]
    if isinstance(value, complex):
        return ["c", value.real.hex(), value.imag.hex()]
    if isinstance(value, bytes | bytearray):
        return ["b" if isinstance(value, bytes) else "B", bytes(value).hex()]
    if isinstance(value, Decimal | Fraction):
        return ["D" if isinstance(value, Decimal) else "F", str(value)]
    if isinstance(value, range):
        return ["r", value.start, value.stop, value.step]
    if isinstance(value, dict):
        return ["d", *([encoded(key), encoded(one)] for key, one in dict.items(value))]
    for tag, kind in _KINDS.items():
        if isinstance(value, kind):
            return [tag, *map(encoded, kind.__iter__(value))]
    if isinstance(value, Iterator | KeysView | ValuesView | ItemsView):
        return ["it", *(encoded(one) for one, _ in zip(value, range(MOST_ITEMS), strict=False))]
    if callable(getattr(value, "tolist", None)):  # numpy's
        return encoded(value.tolist())
    return ["o", bool(value)]


def decoded(value: Any) -> Any:
    """The inverse."""
    if not isinstance(value, list):
        return value
    tag, *rest = value
    if tag in _KINDS:
        return _KINDS[tag](map(decoded, rest))
    return _READERS[tag](*rest)


_KINDS: dict[str, Any] = {"l": list, "t": tuple, "s": set, "z": frozenset, "q": deque}
_READERS: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "f": float.fromhex,
    "c": lambda real, imaginary: complex(float.fromhex(real), float.fromhex(imaginary)),
    "b": bytes.fromhex,
    "B": bytearray.fromhex,
    "D": Decimal,
    "F": Fraction,
    "r": range,
    "d": lambda *pairs: {decoded(key): decoded(one) for key, one in pairs},
    "o": lambda truth: Other(truth is True),
    "it": lambda *items: iter(list(map(decoded, items))),
}


def module_of(*sources: str) -> types.ModuleType:
    """A module of its own in which the sources have run, one after the other."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    for source in sources:
        exec(compile(source, "solution.py", "exec"), module.__dict__)  # noqa: S102
    return module


def serve(prefix: str, answer: str, entry_point: str, next_call: Callable[[str], str]) -> None:
    """In the answer's sandbox: run it, then answer calls until the sandbox is ended."""
    function = getattr(module_of(prefix, answer), entry_point)
    reply = "null"
    while True:
        arguments, keywords = decoded(json.loads(next_call(reply)))
        try:
            reply = json.dumps(["returned", encoded(function(*arguments, **keywords))])
        except BaseException as error:
            reply = json.dumps(["raised", type(error).__name__, str(error)[:1000]])


def check(
    prefix: str, tests: str, entry_point: str, call: Callable[[str], str], passed: Callable[[], Any]
) -> None:
    """In the tests' sandbox: run them over a function that asks the other one."""

    def function(*arguments: Any, **keywords: Any) -> Any:
        how, *what = json.loads(call(json.dumps(encoded((arguments, keywords)))))
        if how == "returned":
            return decoded(what[0])
        kind: Any = getattr(builtins, what[0], None)
        is_usual = isinstance(kind, type) and issubclass(kind, Exception)
        raise (kind if is_usual and kind not in _MISLEADING else RuntimeError)(what[1])

    function.__name__ = entry_point
    module = module_of(prefix)
    module.__dict__[entry_point] = function
    exec(compile(tests, "tests.py", "exec"), module.__dict__)  # noqa: S102
    passed()


def check_together(
    module: types.ModuleType, kept: dict[str, Any], tests: str, passed: Callable[[], Any]
) -> None:
    """In a sandbox that both share: run the tests in the answer's module, with Python's builtins.

    Whoever wrote the answer can reach all of this; see docs/rewards.md.
    """
    vars(builtins).update(kept)
    sys.settrace(None)
    sys.setprofile(None)
    module.__dict__["__builtins__"] = vars(builtins)
    exec(compile(tests, "tests.py", "exec"), module.__dict__)  # noqa: S102
    passed()
