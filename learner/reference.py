"""The frozen model that a KL term keeps the policy close to."""

from pathlib import Path

import torch
from torch import Tensor, nn

from learner.model import load_model, token_logprobs
from learner.packing import Pack
from learner.sharding import Rank, shard


class ReferenceModel:
    """The model that the run started from, sharded like the policy and never trained."""

    def __init__(self, model: nn.Module, *, temperature: float) -> None:
        """Freeze ``model``; log-probabilities are at the sampling ``temperature``."""
        self._model = model.eval()
        self._temperature = temperature
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def logprobs(self, pack: Pack) -> Tensor:
        """[N] float32 of the pack's targets; every rank calls it with a pack of its own."""
        return token_logprobs(self._model, pack, temperature=self._temperature)


def load_reference(
    path: str | Path, rank: Rank, *, compute_dtype: torch.dtype, temperature: float
) -> ReferenceModel:
    """Load and shard the reference.

    Raises:
        InputError: see ``load_model``.
    """
    model = load_model(path, dtype=torch.float32)
    shard(model, rank, compute_dtype=compute_dtype)
    return ReferenceModel(model, temperature=temperature)
