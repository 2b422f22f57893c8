"""What a record of a question set says, whatever its shape."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

Passage = tuple[str, str]
"""Title and text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One question.

    Attributes:
        question: what is asked.
        golds: gold answers as they stand; None for a null among them.
        source: the set that it is from; empty where the record does not say.
        original_id: its id in that set, if it has one.
        kind: the task type that scores it.
        family: what scores are grouped by; empty for that of its source.
        labels, details: of the task.
        passages: those that come with it.
    """

    question: str
    golds: tuple[str | None, ...]
    source: str = ""
    original_id: str | None = None
    kind: str = "qa"
    family: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that is as it should be, but holds no question that can be scored."""

    reason: str


_KNOWN = {
    "hotpotqa": "hotpotqa",
    "hotpot": "hotpotqa",
    "2wiki": "2wiki",
    "2wikimultihop": "2wiki",
    "2wikimultihopqa": "2wiki",
    "musique": "musique",
    "nq": "nq",
    "nqopen": "nq",
    "naturalquestions": "nq",
    "triviaqa": "triviaqa",
    "popqa": "popqa",
    "simpleqa": "simpleqa",
    "bamboogle": "bamboogle",
    "gsm8k": "gsm8k",
    "math500": "math500",
    "deepmath": "deepmath",
    "aime": "aime",
    "aime24": "aime",
    "aime2024": "aime",
    "aime25": "aime",
    "aime2025": "aime",
    "humaneval": "humaneval",
    "mbpp": "mbpp",
}
"""Names of published sets in small letters, without what separates words, and ours for them."""

_FAMILIES = {
    "hotpotqa": "two_hop",
    "bamboogle": "two_hop",
    "nq": "one_hop",
    "triviaqa": "one_hop",
    "popqa": "one_hop",
    "simpleqa": "one_hop",
}


def known_source(name: str) -> str | None:
    """Our name of the published set that occurs in ``name``: as one word, or as two in a row."""
    words = re.findall(r"[a-z0-9]+", name.casefold())
    candidates = [*words, *(one + two for one, two in pairwise(words))]
    return next((_KNOWN[word] for word in candidates if word in _KNOWN), None)


def source_name(name: str) -> str:
    """Our name of a set that a record names, or else its own, fit for ids."""
    return known_source(name) or re.sub(r"[^\w.-]+", "_", name.strip()).strip("_")


def family_of_source(source: str) -> str:
    """What scores of a set's questions are grouped by where its records do not say more."""
    return _FAMILIES.get(source, source)
