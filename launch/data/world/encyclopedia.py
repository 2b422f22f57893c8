"""A generated encyclopedia of people, towns and books, each with a page.

Most names also have a namesake with a shorter page of its own (a ship, a club, a song). BM25 ranks
a shorter page higher, so that a search for the bare name mostly finds the wrong page, while the
name with a word of the topic ("Anna Keller born") finds the right one.
"""

import random
from dataclasses import dataclass

from launch.data.world.names import COUNTRIES, PROFESSIONS, EntityType, Pool, names

NAMESAKE_SHARE = 0.6
"""Share of names that have a namesake."""

SIZES: dict[Pool, dict[EntityType, int]] = {
    "train": {"person": 1000, "town": 260, "book": 600},
    "heldout": {"person": 500, "town": 150, "book": 350},
    "unseen": {"person": 300, "town": 120, "book": 200},
}
"""How many entities a world of each pool has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """``town`` and ``year`` of birth."""

    town: str
    year: int
    profession: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Town:
    """``mayor`` is a person of the same world."""

    mayor: str
    country: str
    founded: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Book:
    """``author`` is a person of the same world; ``year`` is the year of publication."""

    author: str
    year: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of the encyclopedia; ``text`` begins with ``title``."""

    title: str
    text: str


class Encyclopedia:
    """A closed encyclopedia: all that its pages mention belongs to its own pool.

    Args:
        seed: decides which names of the pool are used, and all facts.
        pool: which names may be used at all.

    Attributes:
        people, towns, books: entities by name.
        pages: all pages, shuffled; their order breaks ties in search.
    """

    def __init__(self, seed: int, pool: Pool = "train") -> None:
        """Draw names and facts; a pure function of the arguments."""
        self.seed = seed
        self.pool = pool
        rng = random.Random(f"world:{pool}:{seed}")
        chosen = {kind: _choose(rng, kind, pool) for kind in SIZES[pool]}
        self.people = {name: _person(rng, chosen["town"]) for name in chosen["person"]}
        self.towns = {name: _town(rng, name, self.people) for name in chosen["town"]}
        self.books = {name: _book(rng, self.people) for name in chosen["book"]}
        self.pages = self._write_pages(rng)

    def entities(self, entity_type: EntityType) -> list[str]:
        """Names of one type, in a fixed order."""
        match entity_type:
            case "person":
                return list(self.people)
            case "town":
                return list(self.towns)
            case "book":
                return list(self.books)

    def _write_pages(self, rng: random.Random) -> tuple[Page, ...]:
        pages = [Page(title=x, text=_person_page(x, p)) for x, p in self.people.items()]
        pages += [Page(title=x, text=_town_page(x, t)) for x, t in self.towns.items()]
        pages += [Page(title=x, text=_book_page(x, b)) for x, b in self.books.items()]
        for kind in SIZES[self.pool]:
            for name in self.entities(kind):
                if rng.random() < NAMESAKE_SHARE:
                    pages.append(_namesake(name, kind, rng.choice(COUNTRIES)))
        rng.shuffle(pages)
        return tuple(pages)


def _choose(rng: random.Random, kind: EntityType, pool: Pool) -> list[str]:
    return rng.sample(names(kind, pool), SIZES[pool][kind])


def _person(rng: random.Random, towns: list[str]) -> Person:
    return Person(
        town=rng.choice(towns), year=rng.randint(1850, 1979), profession=rng.choice(PROFESSIONS)
    )


def _town(rng: random.Random, name: str, people: dict[str, Person]) -> Town:
    """A town; its mayor was born elsewhere, else a question could hold its own answer."""
    mayors = [person for person, facts in people.items() if facts.town != name]
    return Town(
        mayor=rng.choice(mayors), country=rng.choice(COUNTRIES), founded=rng.randint(1700, 1829)
    )


def _book(rng: random.Random, people: dict[str, Person]) -> Book:
    author = rng.choice(list(people))
    return Book(author=author, year=people[author].year + rng.randint(20, 60))


def _person_page(name: str, person: Person) -> str:
    return f"{name}, {person.profession}, born in {person.town} in {person.year}."


def _town_page(name: str, town: Town) -> str:
    return f"{name}, town in {town.country}, mayor {town.mayor}, founded in {town.founded}."


def _book_page(name: str, book: Book) -> str:
    return f"{name}, novel by {book.author}, published in {book.year}."


def _namesake(name: str, kind: EntityType, country: str) -> Page:
    what, where = {
        "person": ("ship", "built"),
        "town": ("club", "based"),
        "book": ("song", "sung"),
    }[kind]
    return Page(title=f"{name} {what}", text=f"{name} {what}, {where} in {country}.")
