"""The optimizers of supervised fine-tuning, with a schedule that rises and falls linearly."""

from math import isfinite
from typing import Any

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from common.errors import LZeroError
from common.processor import bfloat16_instructions
from learner.engine.optimizer import clip_gradients
from learner.engine.schedule import learning_rate_share
from learner.sft.config import Sft
from learner.sft.muon import SingleMuon


class SftOptimizer:
    """Muon for the matrices inside the layers and AdamW for everything else, or AdamW alone."""

    def __init__(self, model: nn.Module, config: Sft, *, steps: int) -> None:
        """Take the parameters as they are now; ``steps`` is the length of the schedule."""
        self._model = model
        self._config = config
        self._steps = steps
        self.parts = _make(model, config)
        self._full_rates = [group["lr"] for part in self.parts for group in part.param_groups]
        self.taken = 0
        """Steps taken so far."""

    def step(self) -> None:
        """Clip the gradients, apply them and clear them.

        Raises:
            LZeroError: they are not finite.
        """
        config = self._config
        norm = clip_gradients(self._model.parameters(), config.grad_clip)
        if not isfinite(norm):
            raise LZeroError(
                f"the gradient's norm became {norm} in step {self.taken + 1}; lower the learning "
                "rates, or look for a broken trace"
            )
        share = learning_rate_share(
            self.taken, self._steps, config.warmup_steps, config.final_share
        )
        groups = [group for part in self.parts for group in part.param_groups]
        for group, rate in zip(groups, self._full_rates, strict=True):
            group["lr"] = rate * share
        for part in self.parts:
            part.step()
            part.zero_grad()
        self.taken += 1

    def counters(self) -> dict[str, Any]:
        """What a checkpoint keeps besides the optimizers' tensors."""
        return {"taken": self.taken}

    def restore_counters(self, counters: dict[str, Any]) -> None:
        """Go on in the schedule where ``counters`` was taken."""
        self.taken = int(counters["taken"])


def _make(model: nn.Module, config: Sft) -> tuple[Optimizer, ...]:
    inside: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            vectors.append(parameter)
        else:
            muon = config.optimizer == "muon" and ".layers." in name
            (inside if muon else matrices).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": 0.05},
        {"params": vectors, "weight_decay": 0.0},
    ]
    adamw = AdamW(groups, lr=config.adamw_learning_rate, betas=(0.9, 0.98), fused=True)
    if not inside:
        return (adamw,)
    in_half = inside[0].is_cuda or bool(bfloat16_instructions())
    muon_part = (Muon if in_half else SingleMuon)(
        inside,
        lr=config.muon_learning_rate,
        weight_decay=0.01,
        momentum=0.95,
        adjust_lr_fn="original",
    )
    return muon_part, adamw
