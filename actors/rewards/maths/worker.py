"""Compares formulas in a process of its own: ``python -m actors.rewards.maths.worker``.

A line of JSON in, ``{"given": ..., "gold": [...]}``; a line out, ``1`` or ``0``. It begins with the
line ``ready``. More than the CPU time or memory that one comparison may take ends the process: no
signal handler could stop a computation inside of sympy's integers.

waits for  a line of its judge process
unblocked by  that process, or its end
"""

import json
import resource
import signal
import sys

from actors.rewards.maths.equality import equal_answers
from actors.rewards.maths.symbolic import equal_formulas

MEMORY_BYTES = 2 << 30
"""Of address space, with everything that is imported."""

_WARM_UP = (
    (r"\frac{1}{2} + 2\sqrt{x}", r"\frac{1+4\sqrt{x}}{2}"),
    (
        r"\begin{pmatrix} 1 \\ -\frac{1}{2} \end{pmatrix}",
        r"\begin{pmatrix} 1 \\ -1/2 \end{pmatrix}",
    ),
)
"""The parser learns its grammar as it goes: the first formulas take seconds, later ones little."""


def main() -> int:
    """Answer until the input ends; the only argument is the CPU time of one comparison, seconds."""
    seconds = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for given, gold in _WARM_UP:
        equal_answers(given, gold, equal_formulas)
    _say("ready")
    for line in sys.stdin:
        signal.setitimer(
            signal.ITIMER_PROF, seconds
        )  # nothing handles SIGPROF: it ends the process
        equal = _equal(line)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _say(str(int(equal)))
    return 0


def _equal(line: str) -> bool:
    asked = json.loads(line)
    try:
        return any(equal_answers(asked["given"], gold, equal_formulas) for gold in asked["gold"])
    except (MemoryError, RecursionError, ValueError, ArithmeticError):
        return False


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
