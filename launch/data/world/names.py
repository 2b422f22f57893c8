"""Names of the generated encyclopedia and the pool that each belongs to.

Every name is two words. A stable hash of the whole name puts it into the training or the held-out
pool, whatever the seed of a world: no held-out name can occur in any training world. The names of
the ``unseen`` pool are made of words that the other two never use.
"""

from hashlib import blake2b
from typing import Literal

Pool = Literal["train", "heldout", "unseen"]
"""Which names a world may use."""

EntityType = Literal["person", "book", "town"]
"""What a name stands for."""

HELDOUT_SHARE = 0.3
"""Share of all name combinations that only held-out worlds use."""

_FIRST_NAMES = """
Anna Tom Maria Peter Clara Hugo Nina Oscar Julia Felix Ruth Simon Elsa Victor Laura Martin Irene
Paul Greta David Sofia Leon Helen Marco Alice Bruno Edith Karl Diana Roman Vera Otto Lucy Emil
Rosa Frank Agnes Henry Olga Jonas Ella Adam Ida Max Nora Theo Iris Erik Mona Luis
"""
FIRST_NAMES = _FIRST_NAMES.split()
_LAST_NAMES = """
Keller Reyes Novak Berg Silva Hart Moreau Lindt Castro Weber Dunn Okafor Rossi Vance Holm Tanaka
Brandt Price Sousa Kovac Marsh Adler Quinn Petrov Lowe Sato Fischer Boone Varga Nash Meyer Cruz
Dahl Frost Ortiz Stone Hahn Blake Costa Ivanov Sharp Roth Mendez Lake Falk Young Serra Grant
Zeller Pratt Wolff Byrne Lang Torres Kent Moss Engel Ward Duarte Finch
"""
LAST_NAMES = _LAST_NAMES.split()
_BOOK_ADJECTIVES = """
Silent Broken Golden Hidden Crimson Distant Frozen Gentle Hollow Iron Jagged Lonely Marble
Narrow Ocean Pale Quiet Restless Silver Tender Velvet Wild Amber Bitter Copper Dark Early Fading
Grey Honest Last Midnight Northern Open Paper Royal Scarlet Thin Upper Winter
"""
BOOK_ADJECTIVES = _BOOK_ADJECTIVES.split()
_BOOK_NOUNS = """
Harbor Garden River Mirror Sparrow Lantern Forest Bridge Castle Orchard Signal Window Voyage
Letter Tower Island Shadow Compass Meadow Station Archive Canyon Desert Engine Feather Glacier
Horizon Journal Kingdom Ladder Market Needle Oracle Palace Quarry Railway Summer Temple Valley
Whistle
"""
BOOK_NOUNS = _BOOK_NOUNS.split()
_TOWN_PREFIXES = """
Port Loch Fort Mount New Old Nether Lower Saint Glen Cape Point Mill Abbey North South East West
Grand Little Great High Long Crown Bay Brook Isle Green Fair Kings
"""
TOWN_PREFIXES = _TOWN_PREFIXES.split()
_TOWN_NAMES = """
Alden Barrow Corvin Delmar Everly Farrow Garrick Hadley Ingram Jarvis Kendal Lorne Maddox Norris
Orwell Penrose Radnor Selby Tilden Umber Vernon Wexley Yarrow Zennor
"""
TOWN_NAMES = _TOWN_NAMES.split()

_UNSEEN_FIRST_NAMES = """
Boris Celia Dmitri Esther Fiona Gustav Hilda Ingrid Jacob Katya Lionel Miriam Nathan Odette
Pavel Quentin Rafael Selma Tobias Ursula
"""
UNSEEN_FIRST_NAMES = _UNSEEN_FIRST_NAMES.split()
_UNSEEN_LAST_NAMES = """
Abbott Bellini Chandra Dvorak Eklund Farkas Gupta Hoffman Iqbal Jensen Kimura Larsen Murphy
Nakata Osborne Pereira Ramirez Santos Tucker Ueda
"""
UNSEEN_LAST_NAMES = _UNSEEN_LAST_NAMES.split()
_UNSEEN_BOOK_ADJECTIVES = """
Ancient Blazing Cobalt Drifting Endless Fearless Gilded Humble Ivory Jolly Kindred Luminous
Mellow Noble Opal Patient
"""
UNSEEN_BOOK_ADJECTIVES = _UNSEEN_BOOK_ADJECTIVES.split()
_UNSEEN_BOOK_NOUNS = """
Anchor Beacon Candle Dragon Emblem Falcon Goblet Hammer Insect Jewel Kettle Locket Museum Nectar
Organ Pebble
"""
UNSEEN_BOOK_NOUNS = _UNSEEN_BOOK_NOUNS.split()
UNSEEN_TOWN_PREFIXES = [
    "Stony",
    "Sunny",
    "Misty",
    "Rocky",
    "Sandy",
    "Broad",
    "Dry",
    "Deep",
    "Black",
    "White",
    "Red",
    "Blue",
    "Twin",
    "Second",
]
UNSEEN_TOWN_NAMES = [
    "Ashby",
    "Bexford",
    "Clifton",
    "Dunmore",
    "Elgin",
    "Fenwick",
    "Granby",
    "Holt",
    "Inverley",
    "Kirkwall",
    "Ludlow",
    "Melrose",
    "Nairn",
    "Oakham",
]

PROFESSIONS = [
    "painter",
    "composer",
    "lawyer",
    "engineer",
    "poet",
    "doctor",
    "chemist",
    "actor",
    "pilot",
    "farmer",
]
COUNTRIES = ["Norland", "Estavia", "Morania", "Kelvia", "Tarsia", "Ostrava", "Belmar", "Quenda"]

_WORDS: dict[EntityType, tuple[list[str], list[str]]] = {
    "person": (FIRST_NAMES, LAST_NAMES),
    "book": (BOOK_ADJECTIVES, BOOK_NOUNS),
    "town": (TOWN_PREFIXES, TOWN_NAMES),
}
_UNSEEN_WORDS: dict[EntityType, tuple[list[str], list[str]]] = {
    "person": (UNSEEN_FIRST_NAMES, UNSEEN_LAST_NAMES),
    "book": (UNSEEN_BOOK_ADJECTIVES, UNSEEN_BOOK_NOUNS),
    "town": (UNSEEN_TOWN_PREFIXES, UNSEEN_TOWN_NAMES),
}


def names(entity_type: EntityType, pool: Pool) -> list[str]:
    """All names of a pool, in a fixed order."""
    if pool == "unseen":
        return _combinations(_UNSEEN_WORDS[entity_type])
    heldout = pool == "heldout"
    everything = _combinations(_WORDS[entity_type])
    return [name for name in everything if _is_heldout(name) is heldout]


def _combinations(words: tuple[list[str], list[str]]) -> list[str]:
    first, second = words
    return [f"{left} {right}" for left in first for right in second]


def _is_heldout(name: str) -> bool:
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELDOUT_SHARE * 2**64
