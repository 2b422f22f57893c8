"""Where our exact match and the published one judge gold answers differently.

    python -m benchmarks.bench_scores [--quiet] FILE...

Takes task files, and compares every gold answer with itself and with every other one of all files,
the one as the answer, the other as the gold: so each pair that one metric calls equal and the other
does not is found, also among answers to different questions. Prints each with the reason, and how
many there are of each reason; with --quiet only the latter.

The published metric is that of SQuAD (``actors/rewards/squad.py``). A reason is a change of both
texts that makes the two metrics agree on them: the first one of the list that does it alone, or
else the shortest chain of them.
"""

import argparse
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from actors.rewards.answers import exact_match, forms
from actors.rewards.dates import parse_date
from actors.rewards.squad import squad_exact_match, squad_normalise
from common.errors import InputError
from common.tasks import read_tasks

Change = Callable[[str], str]
UNEXPLAINED = "unexplained"


def _sub(pattern: str, to: str) -> Change:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda text: compiled.sub(to, text)


def _without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFD", text)
    return "".join(c for c in parts if unicodedata.category(c) != "Mn")


def _by_category(kinds: str, to: str) -> Change:
    return lambda text: "".join(
        to if not c.isascii() and unicodedata.category(c) in kinds.split() else c for c in text
    )


def _digits(text: str) -> str:
    return "".join(str(unicodedata.digit(c)) if c.isdecimal() else c for c in text)


def _one_date(text: str) -> str:
    return str(parse_date(text) or text)


WE_ARE_STRICTER: tuple[tuple[str, Change], ...] = (
    ("a sign in front of a number", _sub(r"[-\u2212+](?=[$€£]?\.?\d)", "")),
    ("a decimal point", _sub(r"(?<=\d)\.(?=\d)|\.(?=\d)", "")),
    ("percent", _sub(r"%", "")),
    ("a list of numbers, a range or a date in digits", _sub(r"(?<=\d)[^\w\s](?=\d)", "")),
    ("a plus, sharp or caret", _sub(r"[+#^<>=]", "")),
    ("a minus behind letters", _sub(r"(?<=\w)-(?!\w)", "")),
    ("an A at the end", _sub(r"\ba\b\W*$", "")),
    ("articles alone", _sub(r"^\W*(?:(?:a|an|the)\b\W*)+$", "x")),
    ("nothing but punctuation", _sub(r"^\W*$", "x")),
    ("different currencies", _sub(r"[$€£¥]", "")),
    ("LaTeX", _sub(r"\\[!,]|[{}\\]", "")),
    ("initials glued to a word, or with points on one side only", _sub(r"(?<=\w)\.(?=\w)", "")),
)
"""What makes ours accept, too: SQuAD deletes it, and we do not."""

SQUAD_IS_STRICTER: tuple[tuple[str, Change], ...] = (
    ("accents", _without_accents),
    (
        "an apostrophe or dash beyond ASCII",
        _sub("[\u2018\u2019\u02bb\u02bc\u2010-\u2015\u2212]", "-"),
    ),
    ("a currency or another symbol beyond ASCII", _by_category("Pc Ps Pe Po Sm Sk So Sc", " ")),
    ("width, ligatures and raised digits", lambda text: unicodedata.normalize("NFKC", text)),
    ("case folding", str.casefold),
    ("invisible characters", _by_category("Cf", "")),
    ("digits of other scripts", _digits),
    ("initials with spaces between them", _sub(r"\b([a-z])\. ?(?=[a-z]\.)", r"\1")),
    ("spaces between thousands", _sub(r"(?<=\d) (?=\d{3}\b)", "")),
    ("percent in words", _sub(r"(?<=\d) *(percent|per cent|%)", " % ")),
    ("the same date in another form", _one_date),
    ("a space in scripts without spaces", _sub(r"(?<=[^\x00-\u0dff])\s+(?=[^\x00-\u0dff])", "")),
    ("a number without its leading zero", _sub(r"(?<![\w.])\.(?=\d)", "0.")),
    ("a point or comma without a space behind it", _sub(r"(?<=\w)[.,](?=\w{2})", " ")),
    ("ASCII punctuation between words", _sub(r"[^\w\s]+", " ")),
    ("punctuation left out on one side and a space on the other", _sub(r"[\W_]+", "")),
)
"""What makes SQuAD's accept, too: we see through it, and SQuAD does not."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A pair of gold answers that one metric calls equal and the other does not."""

    one: str
    other: str
    ours: bool
    reason: str


def disagreements(golds: Iterable[str]) -> Iterator[Disagreement]:
    """Each pair of different texts, and each text with itself, that is judged differently."""
    for one, other in sorted(_candidates(set(golds))):
        ours = bool(exact_match(one, [other]))
        if ours != bool(squad_exact_match(one, [other])):
            yield Disagreement(one, other, ours, _reason(one, other, ours))


def _candidates(golds: set[str]) -> set[tuple[str, str]]:
    """All pairs that either metric may call equal."""
    alike: defaultdict[Hashable, set[str]] = defaultdict(set)
    for gold in golds:
        for form in (squad_normalise(gold), *forms(gold)):
            alike[form].add(gold)
    pairs = {(one, one) for one in golds}
    for group in alike.values():
        pairs.update(combinations(sorted(group), 2))
    return pairs


def _reason(one: str, other: str, ours: bool) -> str:
    changes = SQUAD_IS_STRICTER if ours else WE_ARE_STRICTER
    judge = squad_exact_match if ours else exact_match
    for length in (1, 2, 3):
        for chain in combinations(changes, length):
            left, right = one, other
            for _, change in chain:
                left, right = change(left), change(right)
            if judge(left, [right]):
                return " + ".join(name for name, _ in chain)
    return UNEXPLAINED


def main(arguments: list[str]) -> int:
    """Print what the files' gold answers show; 0 if every disagreement has a reason."""
    parser = argparse.ArgumentParser(prog="benchmarks.bench_scores", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--quiet", action="store_true", help="only how many there are of each")
    options = parser.parse_args(arguments)
    try:
        golds = {gold for file in options.files for t in read_tasks(file) for gold in t.answers}
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts: Counter[tuple[bool, str]] = Counter()
    for found in disagreements(golds):
        counts[found.ours, found.reason] += 1
        if not options.quiet:
            equal = "ours" if found.ours else "SQuAD"
            print(f"equal for {equal} only: {found.one!r}  {found.other!r}  ({found.reason})")
    print(f"{len(golds)} different gold answers, {sum(counts.values())} pairs judged differently")
    for ours, who in ((True, "ours"), (False, "SQuAD")):
        for (side, reason), count in counts.most_common():
            if side is ours:
                print(f"{count:6}  equal for {who} only: {reason}")
    return int(any(reason == UNEXPLAINED for _, reason in counts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
