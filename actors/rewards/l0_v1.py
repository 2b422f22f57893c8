"""The reward terms of the published system as it shipped them, for comparison runs.

With QA weight 0.8, format and code 0.1 each, K steps:

    QA_k   = 0 for k < K;  QA_K = 0.9 EM + 0.1 has_answer
    FMT_k  = 1/K if there is exactly one think block of more than 10 characters and exactly one
             code block of more than 5
    CODE_k = 1/K (1 - errors / outputs), 0 without outputs

It is kept with its faults, which docs/rewards.md lists: prefer the default for training.

Source: Zhang et al. 2025 (L0), arXiv:2506.23667, and its published reward code.
"""

import re
from collections.abc import Sequence

from actors.rewards.terms import FinishedEpisode, RewardTerm
from common.wire.records import Step

_REMOVED = re.compile(r"[^a-z0-9\s]")


def l0_normalise(text: str) -> str:
    """Lower case, ASCII letters, digits and single spaces only; other scripts vanish."""
    return " ".join(_REMOVED.sub("", text.lower()).split())


def l0_exact_match(answer: str, gold: str) -> float:
    """1.0 if both are equal after ``l0_normalise``, also where both are empty."""
    return float(l0_normalise(answer) == l0_normalise(gold))


def l0_qa_term(episode: FinishedEpisode) -> Sequence[float]:
    """0.9 EM + 0.1 for any answer, even an empty one; 0.5 on every step without a gold answer.

    Only the first gold answer counts.
    """
    gold = episode.task.answers[0] if episode.task.answers else ""
    if not gold:
        return [0.5] * len(episode.steps)
    if episode.answer is None:
        return episode.on_last_step(0.0)
    return episode.on_last_step(0.9 * l0_exact_match(episode.answer, gold) + 0.1)


def l0_format_term(episode: FinishedEpisode) -> Sequence[float]:
    """Share of actions with one think and one code block, both long enough."""
    return episode.per_step(_has_format)


def l0_code_term(episode: FinishedEpisode) -> Sequence[float]:
    """Mean share of a cell's outputs that are not a traceback; 0 for a cell without outputs."""
    return episode.per_step(_share_without_errors)


def _has_format(step: Step) -> float:
    thinks, codes = _blocks(step.action, "think"), _blocks(step.action, "code")
    if len(thinks) != 1 or len(codes) != 1:
        return 0.0
    return float(len(thinks[0].strip()) > 10 and len(codes[0].strip()) > 5)


def _blocks(text: str, tag: str) -> list[str]:
    """What ``<tag>(.*?)</tag>`` finds, in one pass even where nothing is ever closed."""
    closed = text.split(f"</{tag}>")[:-1]
    return [part.partition(f"<{tag}>")[2] for part in closed if f"<{tag}>" in part]


def _share_without_errors(step: Step) -> float:
    if not step.outputs:
        return 0.0
    errors = 0 if step.status == "ok" else 1
    return 1.0 - errors / step.outputs


L0_TERMS: dict[str, RewardTerm] = {
    "l0_qa": l0_qa_term,
    "l0_format": l0_format_term,
    "l0_code": l0_code_term,
}
"""The terms of the preset ``l0_v1``."""
