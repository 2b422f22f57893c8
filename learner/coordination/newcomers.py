"""Who takes part beyond those that the run was planned with, and who is to leave.

Pure but for two doors and a file behind callables. What always holds:

* A name is given once in the life of a run; a key has one name, however often it asks.
* Whoever was admitted, or is to leave, is on the disk before anybody is told so: a learner that
  begins again knows it.
* Who is to leave gets no tasks and no requests any more. An actor keeps the time to finish; what a
  server is at work on is made again elsewhere.
"""

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from common.places import Address, Member, Role
from common.wire.codec import SCHEMA_VERSION
from common.wire.joining import Admitted, Join
from common.wire.session import Refused

log = logging.getLogger(__name__)

_LETTERS: dict[str, tuple[str, Role]] = {
    "actor": ("a", "actor"),
    "policy-server": ("s", "policy-server"),
}
"""Before the number in a member's name, by its role."""
_NUMBERED = re.compile(r"([as])(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a newcomer is told, and what is done with it.

    Attributes:
        config: the run's resolved configuration, as JSON.
        weights: where workers of policy servers fetch weights.
        finish_s: time that an actor which is to leave has for what it holds.
        keep: puts all that were admitted on the disk.
        keep_leaving: puts the names of all that are to leave there.
        let_in: opens the doors to a member; raises ValueError for what is no key.
    """

    config: str
    weights: Address
    finish_s: float
    keep: Callable[[Sequence[Member]], None]
    keep_leaving: Callable[[Sequence[str]], None]
    let_in: Callable[[Member], None]


class Newcomers:
    """The members of a run, and who of them is to leave."""

    def __init__(
        self,
        terms: Terms,
        planned: Sequence[Member],
        admitted: Sequence[Member] = (),
        *,
        leaving: Collection[str] = (),
    ) -> None:
        """``admitted`` came after the plan was made; the doors know them already.

        ``leaving`` were told to leave before the learner began again.
        """
        self._terms = terms
        self._planned = tuple(planned)
        self._admitted = list(admitted)
        self._given = [member.name for member in (*planned, *admitted)]
        """Names; that of who could not be admitted after all is given to nobody else."""
        self.leaving = set(leaving)
        """Names of those that are to leave."""

    @property
    def finish_s(self) -> float:
        """Time that who is to leave has for what it holds."""
        return self._terms.finish_s

    def role(self, name: str) -> Role | None:
        """What a member does; None of who is none."""
        members = (*self._planned, *self._admitted)
        return next((member.role for member in members if member.name == name), None)

    def is_planned(self, name: str) -> bool:
        """Whether a member has been there from the start."""
        return any(member.name == name for member in self._planned)

    def names(self, role: Role) -> list[str]:
        """The members of that role that are not to leave."""
        members = (*self._planned, *self._admitted)
        return [m.name for m in members if m.role == role and m.name not in self.leaving]

    def admit(self, wish: Join) -> Admitted | Refused:
        """Make somebody a member."""
        if wish.schema_version != SCHEMA_VERSION:
            return Refused(
                reason=f"it speaks wire schema {wish.schema_version}, the coordinator "
                f"{SCHEMA_VERSION}; run the same version of l-zero on both sides"
            )
        known = next((member for member in self._admitted if member.key == wish.key), None)
        try:
            member = known or self._enrol(wish)
        except (ValueError, OSError) as error:
            return Refused(reason=f"it cannot be admitted: {error}")
        return Admitted(name=member.name, config=self._terms.config, weights=self._terms.weights)

    def _enrol(self, wish: Join) -> Member:
        letter, role = _LETTERS[wish.role]
        member = Member(name=f"{letter}{self._next(letter)}", role=role, key=wish.key)
        self._given.append(member.name)
        self._terms.let_in(member)
        self._terms.keep([*self._admitted, member])
        self._admitted.append(member)
        log.info("admitted name=%s role=%s", member.name, member.role)
        return member

    def _next(self, letter: str) -> int:
        found = (_NUMBERED.fullmatch(name) for name in self._given)
        numbers = [int(match[2]) for match in found if match and match[1] == letter]
        return max(numbers, default=-1) + 1

    def send_away(self, name: str, *, living: Collection[str]) -> str:
        """Have a member leave; why that cannot be, else nothing.

        ``living`` are the policy servers that are there and not dead: one of them has to stay.
        """
        role = self.role(name)
        if role not in ("actor", "policy-server"):
            there = ", ".join([*self.names("actor"), *self.names("policy-server")])
            return f"the run has no member '{name[:40]}'; there are: {there}"
        if role == "policy-server" and not set(living) - self.leaving - {name}:
            return f"{name} is the only policy server of the run; bring another one in first"
        try:
            self._terms.keep_leaving(sorted({*self.leaving, name}))
        except OSError as error:
            return f"that {name} is to leave cannot be kept: {error}"
        self.leaving.add(name)
        log.info("is to leave name=%s role=%s", name, role)
        return ""
