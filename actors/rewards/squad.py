"""Exact match and F1 as the SQuAD and HotpotQA scripts compute them, for comparable reports.

Byte for byte: lower-casing, removal of ``string.punctuation`` (ASCII only), of English articles and
of repeated white space, nothing else. Rewards use ``answers.py``, which has no holes for other
scripts.

Source: Rajpurkar et al. 2016, arXiv:1606.05250; Yang et al. 2018, arXiv:1809.09600, and their
published evaluation scripts.
"""

import re
import string
from collections.abc import Sequence

from actors.rewards.overlap import token_f1

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SPECIAL = frozenset({"yes", "no", "noanswer"})


def squad_normalise(text: str) -> str:
    """The form in which both scripts compare answers; it may be empty."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_exact_match(answer: str, gold: Sequence[str]) -> float:
    """1.0 if the answer equals a gold answer after ``squad_normalise``, else 0.0."""
    given = squad_normalise(answer)
    return float(any(given == squad_normalise(one) for one in gold))


def squad_f1(answer: str, gold: Sequence[str], *, yes_no_rule: bool = True) -> float:
    """Token F1 against the best gold answer.

    Args:
        answer: what was submitted.
        gold: gold answers.
        yes_no_rule: HotpotQA's rule, 0 where yes, no or noanswer is on one side only. SQuAD's
            script has no such rule.
    """
    given = squad_normalise(answer)
    return max((_f1(given, squad_normalise(one), yes_no_rule) for one in gold), default=0.0)


def _f1(given: str, gold: str, yes_no_rule: bool) -> float:
    if yes_no_rule and given != gold and (given in _SPECIAL or gold in _SPECIAL):
        return 0.0
    return token_f1(given.split(), gold.split())
