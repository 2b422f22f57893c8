"""The frozen model that a KL term keeps the policy close to."""

from pathlib import Path

import torch
from torch import Tensor, nn

from learner.engine.context_parallel import ContextRanks
from learner.engine.mesh import Rank
from learner.engine.model import token_logprobs
from learner.engine.policy import load_sharded
from learner.packs.packing import Pack


class ReferenceModel:
    """The model that the run started from, sharded like the policy and never trained."""

    def __init__(
        self, model: nn.Module, *, temperature: float, context: ContextRanks | None = None
    ) -> None:
        """Freeze ``model``; log-probabilities are at the sampling ``temperature``.

        ``context``: the ranks that share packs, where they do.
        """
        self._model = model.eval()
        self._temperature, self._context = temperature, context
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    @torch.no_grad()
    def logprobs(self, pack: Pack) -> Tensor:
        """[N] float32 of the pack's targets; every rank calls it, with a pack of its own share."""
        return token_logprobs(
            self._model, pack, temperature=self._temperature, context=self._context
        )


def load_reference(
    path: str | Path,
    rank: Rank,
    *,
    compute_dtype: torch.dtype,
    temperature: float,
    cpu_offload: bool = False,
) -> ReferenceModel:
    """Load and shard the reference.

    Raises:
        InputError, MachineError: see ``learner.engine.policy.load_sharded``.
    """
    model = load_sharded(
        path, rank, compute_dtype=compute_dtype, cpu_offload=cpu_offload, frozen=True
    )
    return ReferenceModel(model, temperature=temperature, context=rank.context)
