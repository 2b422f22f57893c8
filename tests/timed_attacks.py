"""Attacks that need more time than they have, or none; a cell imports what this module does."""

import time

from actors.kernels.probes.inside import Target
from actors.kernels.probes.probe import Family, attack


@attack(Family.RESOURCES, timeout_s=0.7)
def take_twice_its_time(target: Target) -> str:
    """Needs longer than its limit, and then finds nothing."""
    time.sleep(1.4)
    return ""


@attack(Family.RESOURCES, timeout_s=0.2)
def never_end(target: Target) -> str:
    """Does not come to its end."""
    while True:
        time.sleep(1)


@attack(Family.RESOURCES)
def get_hold_of_something(target: Target) -> str:
    """Succeeds at once."""
    return "something"
