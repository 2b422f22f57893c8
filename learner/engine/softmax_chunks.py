"""The softmax over a vocabulary that is never there as a whole: one chunk of columns at a time.

With z = logits / temperature, p = softmax(z), y the wanted word and H the entropy:

    log p_y = z_y - log sum_j exp z_j           d log p_y / d z_j = [j = y] - p_j
    H = -sum_j p_j log p_j                      d H / d z_j = -p_j (log p_j + H)
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

MOST_LOGITS = {"cpu": 2**19, "cuda": 2**26}
"""Numbers in one chunk of logits: about what a CPU caches; 256 MiB in float32 on a GPU, where up
to four such chunks exist at once."""

KEPT_LOGITS = {"cpu": 2**27}
"""Logits that the forward pass keeps for the backward pass: 512 MiB in float32 on a CPU, none
elsewhere."""

_LEAST_COLUMNS = 128


class ChunkOptions(NamedTuple):
    """How to score, see ``learner.engine.logprobs.linear_logprobs``."""

    temperature: float
    with_entropy: bool
    most_logits: int
    compiled: bool


def sweep(
    logits: Tensor,
    places: Tensor,
    chosen: Tensor,
    normaliser: Tensor,
    entropies: Tensor,
    options: ChunkOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """What is carried from chunk to chunk, after one more.

    Args:
        logits: [N, columns].
        places: [N] int64, column of the wanted word; outside [0, columns) if in another chunk.
        chosen: [N], z of the wanted word, once seen.
        normaliser: [N], log sum exp z over the chunks so far.
        entropies: [N], entropy over the words so far; as it is unless wanted.
        options: of the call.
    """
    z = logits if options.temperature == 1.0 else logits / options.temperature
    inside = (places >= 0) & (places < z.shape[1])
    picked = z.gather(-1, torch.where(inside, places, 0)[:, None]).squeeze(-1)
    joint = torch.logaddexp(normaliser, z.logsumexp(-1))
    if options.with_entropy:
        logs = z - joint[:, None]
        entropies = (entropies + joint - normaliser) * (normaliser - joint).exp()
        entropies = entropies - (logs.exp() * logs).sum(-1)
    return torch.where(inside, picked, chosen), joint, entropies


def slope_of_logits(
    logits: Tensor,
    places: Tensor,
    normaliser: Tensor,
    entropies: Tensor | None,
    to_logprobs: Tensor,
    to_entropies: Tensor | None,
    options: ChunkOptions,
) -> Tensor:
    """[N, columns], derivative by the logits.

    Args:
        logits: [N, columns].
        places: [N] int64, column of the wanted word; outside [0, columns) if in another chunk.
        normaliser: [N], log sum exp z over all words.
        entropies: [N], over all words; None unless wanted.
        to_logprobs: [N], derivative by log p_y.
        to_entropies: [N], derivative by H; None without entropies.
        options: of the call.
    """
    scale = options.temperature
    logs = (logits if scale == 1.0 else logits / scale) - normaliser[:, None]
    pull = to_logprobs[:, None] / scale
    if entropies is not None and to_entropies is not None:
        pull = pull + (logs + entropies[:, None]) * (to_entropies[:, None] / scale)
    inside = (places >= 0) & (places < logits.shape[1])
    hit = torch.where(inside, to_logprobs / scale, 0.0)
    slope = -logs.exp() * pull
    return slope.scatter_add(-1, torch.where(inside, places, 0)[:, None], hit[:, None])


def chunks(vocabulary: int, rows: int, most_logits: int) -> Iterator[slice]:
    """Columns whose logits for ``rows`` rows come to about ``most_logits`` numbers."""
    width = max(_LEAST_COLUMNS, most_logits // max(1, rows))
    for start in range(0, vocabulary, width):
        yield slice(start, min(start + width, vocabulary))
