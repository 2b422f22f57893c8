"""F1 of two bags of tokens: what all variants of the answer's F1 share."""

from collections import Counter
from collections.abc import Sequence


def token_f1(given: Sequence[str], gold: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over tokens, each counted as often as it occurs.

        F1 = 2 P R / (P + R),  P = common / len(given),  R = common / len(gold)

    Returns:
        In [0, 1]; 0 where nothing is in common, so also where a side is empty.
    """
    common = (Counter(given) & Counter(gold)).total()
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(gold)
    return 2 * precision * recall / (precision + recall)
