"""Questions about a world: one look-up (one hop) or two look-ups, some with a subtraction."""

import random
from dataclasses import dataclass
from typing import Literal

from launch.data.world.encyclopedia import Encyclopedia
from launch.data.world.names import EntityType

Family = Literal["one_hop", "two_hop"]
Relation = Literal["town", "born", "author", "published", "mayor", "founded"]
Wording = Literal["train", "more", "heldout"]
"""``train`` are ``Kind.wordings``; ``more`` these and ``Kind.more_wordings``."""

TOPICS: dict[Relation, str] = {
    "town": "born",
    "born": "born",
    "author": "novel",
    "published": "novel",
    "mayor": "mayor",
    "founded": "founded",
}
"""The word that, searched with a name, finds the page that states the relation."""

FAMILIES: tuple[Family, ...] = ("one_hop", "two_hop")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of question.

    Attributes:
        family: how many look-ups it takes.
        subject: what the question asks about.
        relations: looked up in order, each of the entity that the one before led to.
        subtract: a year on the first page from which the last value is subtracted, or None.
        wordings: templates with ``{x}`` for the subject.
        more_wordings: templates that training may use besides; no held-out question does.
        heldout_wordings: templates that no training question uses.
    """

    family: Family
    subject: EntityType
    relations: tuple[Relation, ...]
    wordings: tuple[str, ...]
    more_wordings: tuple[str, ...]
    heldout_wordings: tuple[str, ...]
    subtract: Relation | None = None

    def templates(self, wording: Wording) -> tuple[str, ...]:
        """The templates of one kind of wording."""
        match wording:
            case "train":
                return self.wordings
            case "more":
                return self.wordings + self.more_wordings
            case "heldout":
                return self.heldout_wordings


KINDS: dict[str, Kind] = {
    "person_town": Kind(
        family="one_hop",
        subject="person",
        relations=("town",),
        wordings=(
            "Where was {x} born?",
            "In which town was {x} born?",
            "What is the birthplace of {x}?",
        ),
        more_wordings=(
            "{x} was born in which town?",
            "Name the town where {x} was born.",
            "Which town does {x} come from?",
            "Give the town in which {x} was born.",
        ),
        heldout_wordings=("Which town is the birthplace of {x}?",),
    ),
    "person_year": Kind(
        family="one_hop",
        subject="person",
        relations=("born",),
        wordings=("When was {x} born?", "In which year was {x} born?"),
        more_wordings=(
            "Tell me when {x} was born.",
            "{x} was born in which year?",
            "Find the year of birth of {x}.",
            "What is the year of birth of {x}?",
            "Give the year in which {x} was born.",
        ),
        heldout_wordings=("What is the year when {x} was born?",),
    ),
    "book_author": Kind(
        family="one_hop",
        subject="book",
        relations=("author",),
        wordings=("Who wrote {x}?", "Who is the author of {x}?"),
        more_wordings=(
            "Name the person who wrote {x}.",
            "{x} was written by whom?",
            "Whose novel is {x}?",
        ),
        heldout_wordings=("Who is the writer of {x}?",),
    ),
    "book_year": Kind(
        family="one_hop",
        subject="book",
        relations=("published",),
        wordings=("When was {x} published?", "In which year was {x} published?"),
        more_wordings=(
            "Tell me when {x} was published.",
            "{x} was published in which year?",
            "Find the year of publication of {x}.",
            "What is the year of publication of {x}?",
            "Give the year in which {x} was published.",
        ),
        heldout_wordings=("What is the year when {x} was published?",),
    ),
    "town_mayor": Kind(
        family="one_hop",
        subject="town",
        relations=("mayor",),
        wordings=("Who is the mayor of {x}?", "Who is mayor in {x}?"),
        more_wordings=(
            "Name the mayor of {x}.",
            "{x} has which mayor?",
            "Find the mayor of {x}.",
        ),
        heldout_wordings=("What is the name of the mayor of {x}?",),
    ),
    "town_year": Kind(
        family="one_hop",
        subject="town",
        relations=("founded",),
        wordings=("When was {x} founded?", "In which year was {x} founded?"),
        more_wordings=(
            "Tell me when {x} was founded.",
            "{x} was founded in which year?",
            "Find the year of foundation of {x}.",
            "What is the year of foundation of {x}?",
            "Give the year in which {x} was founded.",
        ),
        heldout_wordings=("What is the year when {x} was founded?",),
    ),
    "author_town": Kind(
        family="two_hop",
        subject="book",
        relations=("author", "town"),
        wordings=(
            "Where was the author of {x} born?",
            "In which town was the writer of {x} born?",
        ),
        more_wordings=(
            "Name the town where the writer of {x} was born.",
            "The author of {x} was born in which town?",
            "Find the birthplace of the author of {x}.",
            "Give the town in which the writer of {x} was born.",
        ),
        heldout_wordings=("What is the birthplace of the person who wrote {x}?",),
    ),
    "author_year": Kind(
        family="two_hop",
        subject="book",
        relations=("author", "born"),
        wordings=(
            "When was the author of {x} born?",
            "In which year was the writer of {x} born?",
        ),
        more_wordings=(
            "Tell me when the writer of {x} was born.",
            "The author of {x} was born in which year?",
            "Find the year of birth of the author of {x}.",
            "What is the year of birth of the author of {x}?",
            "Give the year in which the writer of {x} was born.",
        ),
        heldout_wordings=("What is the year when the person who wrote {x} was born?",),
    ),
    "birth_mayor": Kind(
        family="two_hop",
        subject="person",
        relations=("town", "mayor"),
        wordings=(
            "Who is the mayor of the town where {x} was born?",
            "Who is mayor in the birthplace of {x}?",
        ),
        more_wordings=(
            "Name the mayor of the town where {x} was born.",
            "The birthplace of {x} has which mayor?",
            "Find the mayor of the birthplace of {x}.",
        ),
        heldout_wordings=("What is the name of the mayor in the town where {x} was born?",),
    ),
    "author_age": Kind(
        family="two_hop",
        subject="book",
        relations=("author", "born"),
        subtract="published",
        wordings=(
            "How old was the author of {x} when it was published?",
            "At what age did the writer publish {x}?",
        ),
        more_wordings=(
            "What was the age of the author when {x} was published?",
            "{x} was published at which age of its author?",
            "Find the age at which the writer published {x}.",
        ),
        heldout_wordings=("How old was the writer when {x} was published?",),
    ),
    "town_age": Kind(
        family="two_hop",
        subject="person",
        relations=("town", "founded"),
        subtract="born",
        wordings=(
            "How old was the birthplace of {x} in the year of birth?",
            "How many years before the birth of {x} was the birthplace founded?",
        ),
        more_wordings=(
            "What was the age of the birthplace of {x} in the year of birth?",
            "The birthplace of {x} was founded how many years before the birth?",
            "Find the age of the birthplace of {x} in the year of birth.",
        ),
        heldout_wordings=("How old was the town where {x} was born in the year of birth?",),
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """One look-up: ``value`` stands on the page of ``entity``."""

    entity: str
    relation: Relation
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question with the way to its answer."""

    kind: str
    text: str
    answer: str
    hops: tuple[Hop, ...]

    @property
    def spec(self) -> Kind:
        """The kind's definition."""
        return KINDS[self.kind]

    @property
    def bridge(self) -> str:
        """The entity between two look-ups; empty where there is one."""
        return self.hops[1].entity if len(self.hops) > 1 else ""


def kinds_of(family: Family) -> list[str]:
    """Names of the kinds of a family."""
    return [name for name, kind in KINDS.items() if kind.family == family]


def fact(world: Encyclopedia, entity: str, relation: Relation) -> str:
    """What the page of ``entity`` says about ``relation``."""
    match relation:
        case "town":
            return world.people[entity].town
        case "born":
            return str(world.people[entity].year)
        case "author":
            return world.books[entity].author
        case "published":
            return str(world.books[entity].year)
        case "mayor":
            return world.towns[entity].mayor
        case "founded":
            return str(world.towns[entity].founded)


def ask(
    world: Encyclopedia, kind: str, subject: str, rng: random.Random, wording: Wording = "train"
) -> Question:
    """A question of a kind about a subject, in one of the wordings."""
    spec = KINDS[kind]
    hops: list[Hop] = []
    entity = subject
    for relation in spec.relations:
        value = fact(world, entity, relation)
        hops.append(Hop(entity=entity, relation=relation, value=value))
        entity = value
    answer = hops[-1].value
    if spec.subtract is not None:
        answer = str(int(fact(world, subject, spec.subtract)) - int(answer))
    text = rng.choice(spec.templates(wording)).format(x=subject)
    return Question(kind=kind, text=text, answer=answer, hops=tuple(hops))


def draw(
    world: Encyclopedia, kinds: list[str], rng: random.Random, wording: Wording = "train"
) -> Question:
    """A random question of one of the kinds."""
    kind = rng.choice(kinds)
    subject = rng.choice(world.entities(KINDS[kind].subject))
    return ask(world, kind, subject, rng, wording)


def distinct(
    world: Encyclopedia, family: Family, count: int, rng: random.Random, wording: Wording = "train"
) -> list[Question]:
    """Up to ``count`` questions, no two of the same kind about the same subject, kinds even."""
    open_pairs = {kind: world.entities(KINDS[kind].subject) for kind in kinds_of(family)}
    for subjects in open_pairs.values():
        rng.shuffle(subjects)
    found: list[Question] = []
    while open_pairs and len(found) < count:
        kind = rng.choice(list(open_pairs))
        found.append(ask(world, kind, open_pairs[kind].pop(), rng, wording))
        if not open_pairs[kind]:
            del open_pairs[kind]
    return found
