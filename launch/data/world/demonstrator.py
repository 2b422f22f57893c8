"""A scripted agent of mixed strategies, good and bad; the warm start imitates it.

Every decision is drawn anew and independently, nothing is filtered by success. The mix makes a bad
strategy the most likely one (searching the bare name, which mostly finds a namesake), so that
reinforcement learning has to move the policy; the good ones occur often enough to be found.
"""

import contextlib
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from common.config.checks import require
from common.config.ranges import Section, Share
from launch.data.world.names import EntityType
from launch.data.world.questions import TOPICS, Question, Relation

Search = Callable[[str], str]

NOTHING = "No results."

_PATTERNS: dict[Relation, str] = {
    "town": r"born in (\w+ \w+) in",
    "born": r"born in \w+ \w+ in (\d+)|in (\d+)",
    "author": r"by (\w+ \w+)",
    "published": r"in (\d+)",
    "mayor": r"mayor (\w+ \w+)",
    "founded": r"in (\d+)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix(Section):
    """Probabilities of the demonstrator's choices."""

    guess_one_hop: Share = 0.12
    """It answers a question of one look-up without any."""
    guess_two_hop: Share = 0.04
    """The same for a question of two."""
    topic: Share = 0.17
    """It searches name and topic, which finds the page."""
    name: Share = 0.40
    """It searches the bare name."""
    question: Share = 0.25
    """It searches the whole question; one word is what these three leave."""
    retry: Share = 0.6
    """It searches again after a wrong page or none."""
    stop_early: Share = 0.10
    """It takes the first page's answer for that of the second."""
    in_head: Share = 0.35
    """It computes in its head, often wrongly."""
    sentence: Share = 0.10
    """It submits a sentence."""
    print_only: Share = 0.05
    """It prints the answer first."""

    def check(self) -> None:
        """The ways to search are no more than all."""
        searches = self.topic + self.name + self.question
        require(
            searches <= 1 + 1e-9,
            f"mix.topic, name and question add up to {searches:g}, more than 1",
        )


WARM_START = Mix()
"""What the shipped warm start imitates."""

PERFECT = Mix(
    guess_one_hop=0.0,
    guess_two_hop=0.0,
    topic=1.0,
    name=0.0,
    question=0.0,
    stop_early=0.0,
    in_head=0.0,
    sentence=0.0,
    print_only=0.0,
)
"""Searches name and topic, computes in code, submits the value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """What the demonstrator thought and ran, and what it saw."""

    think: str
    code: str
    output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """A whole episode; ``answer`` is None where nothing was submitted."""

    moves: tuple[Move, ...]
    answer: str | None


class Demonstrator:
    """Answers questions about one corpus.

    Args:
        search: the search tool.
        guesses: names that it may guess, by type; years are made up.
        rng: source of all decisions.
        mix: their probabilities.
        max_steps: actions per episode.
    """

    def __init__(
        self,
        search: Search,
        guesses: dict[EntityType, list[str]],
        rng: random.Random,
        mix: Mix = WARM_START,
        max_steps: int = 5,
    ) -> None:
        """Keep the arguments."""
        self._search = search
        self._guesses = guesses
        self._rng = rng
        self._mix = mix
        self._max_steps = max_steps

    def demonstrate(self, question: Question) -> Demonstration:
        """Answer one question, well or badly."""
        return _Episode(self._search, self._guesses, self._rng, self._mix, self._max_steps).run(
            question
        )


class _OverError(Exception):
    """The episode has ended."""


class _Episode:
    """One demonstration under way."""

    def __init__(
        self,
        search: Search,
        guesses: dict[EntityType, list[str]],
        rng: random.Random,
        mix: Mix,
        max_steps: int,
    ) -> None:
        self._search = search
        self._guesses = guesses
        self._rng = rng
        self._mix = mix
        self._max_steps = max_steps
        self._moves: list[Move] = []
        self._answer: str | None = None

    def run(self, question: Question) -> Demonstration:
        with contextlib.suppress(_OverError):
            self._play(question)
        return Demonstration(moves=tuple(self._moves), answer=self._answer)

    def _play(self, question: Question) -> None:
        guess = self._mix.guess_two_hop if question.bridge else self._mix.guess_one_hop
        if self._happens(guess):
            self._submit("I know the answer", self._guess(question))
        pages: list[str] = []
        entity = question.hops[0].entity
        for number, hop in enumerate(question.hops):
            page = self._look_up(entity, hop.relation, question.text)
            value = read(page, hop.relation)
            pages.append(page)
            if value is None:
                self._submit("not in the text", "unknown")
                return
            if number + 1 < len(question.hops) and self._happens(self._mix.stop_early):
                self._submit("answer found", value)
            entity = value
        if question.spec.subtract is None:
            self._conclude(pages[-1], entity)
        else:
            self._compute(read(pages[0], question.spec.subtract), entity)

    def _look_up(self, entity: str, relation: Relation, question: str) -> str:
        """Search until the page is right or patience ends; submits "unknown" without a page."""
        while True:
            think, query = self._query(entity, relation, question)
            page = self._run(think, f'print(search("{query}"))', self._search(query))
            if page.startswith(f"{entity},"):
                return page
            if not self._happens(self._mix.retry):
                if page == NOTHING:
                    self._submit("nothing found", "unknown")
                return page

    def _query(self, entity: str, relation: Relation, question: str) -> tuple[str, str]:
        mix, drawn = self._mix, self._rng.random()
        if drawn < mix.topic:
            return "search name and topic", f"{entity} {TOPICS[relation]}"
        if drawn < mix.topic + mix.name:
            return "search the name", entity
        if drawn < mix.topic + mix.name + mix.question:
            return "search the question", question
        return "search one word", entity.split()[-1]

    def _conclude(self, page: str, value: str) -> None:
        while True:
            drawn = self._rng.random()
            if drawn < self._mix.sentence:
                self._submit("give the sentence", page)
            if drawn >= self._mix.sentence + self._mix.print_only:
                self._submit("answer found", value)
            self._run("print the answer", f'print("{value}")', value)

    def _compute(self, later: str | None, earlier: str) -> None:
        if later is None or not earlier.isdigit():
            self._submit("not in the text", "unknown")
            return
        exact = int(later) - int(earlier)
        if self._happens(self._mix.in_head):
            wrong = exact + self._rng.choice([-10, -2, -1, 0, 0, 1, 2, 10])
            self._finish("compute in my head", f"submit_final_answer({wrong})", str(wrong))
        self._finish("compute with code", f"submit_final_answer({later} - {earlier})", str(exact))

    def _guess(self, question: Question) -> str:
        if question.spec.subtract is not None:
            return str(self._rng.randint(20, 60))
        relation = question.hops[-1].relation
        if relation == "town":
            return self._rng.choice(self._guesses["town"])
        if relation in ("author", "mayor"):
            return self._rng.choice(self._guesses["person"])
        return str(self._rng.randint(1850, 1979))

    def _happens(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _run(self, think: str, code: str, output: str) -> str:
        self._moves.append(Move(think=think, code=code, output=output))
        if len(self._moves) >= self._max_steps:
            raise _OverError
        return output

    def _submit(self, think: str, answer: str) -> None:
        self._finish(think, f'submit_final_answer("{answer}")', answer)

    def _finish(self, think: str, code: str, answer: str) -> None:
        self._moves.append(Move(think=think, code=code))
        self._answer = answer
        raise _OverError


def read(page: str, relation: Relation) -> str | None:
    """The value that a page, right or wrong, seems to state for a relation."""
    match = re.search(_PATTERNS[relation], page)
    return next((group for group in match.groups() if group), None) if match else None
