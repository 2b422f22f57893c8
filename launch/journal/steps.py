"""A range of optimizer steps, as people write it."""

import re
from dataclasses import dataclass

from common.errors import InputError

_FORM = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Steps:
    """From ``first`` to ``last``, both of them included; step 1 is the first of a run."""

    first: int
    last: int

    def __str__(self) -> str:
        """As it is written."""
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, step: int) -> bool:
        """Whether a step is one of them."""
        return self.first <= step <= self.last


def parse_steps(text: str) -> Steps:
    """What ``A-B`` or ``A`` says.

    Raises:
        InputError: it is neither, or a range that holds no step.
    """
    match = _FORM.fullmatch(text.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise InputError(
            f"--steps must be a step or a range of them from 1 on, for example 3 or 11-20, "
            f"got {text!r:.40}"
        )
    return Steps(first, last)
