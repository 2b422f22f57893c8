"""The same optimizer step the usual way: a stock Hugging Face model on right-padded batches.

Loss, normalisers, clipping and optimizer are ours; samples are rows of a matrix, padded, with an
attention mask, and the model computes logits of every token.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from benchmarks.learner.mix import samples_by_step
from common.config import Learner, Objective
from common.wire.records import Trajectory
from learner.engine.optimizer import PolicyOptimizer
from learner.objectives.policy_loss import policy_loss
from learner.objectives.sampled import Normalisers, SampledActions
from learner.packs.batch import Batch, build_batch
from learner.packs.packing import PackableSegment

Layout = Literal["segments", "segments_by_length", "steps"]
"""Segments as they come, or shortest first, each micro-batch padded to its longest; or every step
of a trajectory with its whole context, all padded to the longest of the whole batch."""


@dataclass(frozen=True, kw_only=True)
class PaddedResult:
    """What a step did.

    Attributes:
        batches: micro-batches that were run.
        pass_seconds: wall time of their forward and backward passes.
        loss: the sum over them.
        gradient_norm: before clipping.
    """

    batches: int
    pass_seconds: float
    loss: float
    gradient_norm: float


@dataclass(frozen=True, kw_only=True)
class PaddedBatch:
    """Samples as rows, B of them padded to T tokens, with N targets in all.

    Attributes:
        token_ids: [B, T] int64; mask is [B, T], 1 on tokens and 0 on padding.
        rows: [N] int64, columns likewise: where each target is.
        sampled: of the targets: [N] each of log-probabilities, actions and versions.
    """

    token_ids: Tensor
    mask: Tensor
    rows: Tensor
    columns: Tensor
    behaviour_logprobs: Tensor
    action_ids: Tensor
    versions: Tensor


def pad_right(samples: Sequence[PackableSegment], *, width: int) -> PaddedBatch:
    """Lay samples into rows of ``width`` tokens."""
    token_ids = np.zeros((len(samples), width), dtype=np.int64)
    mask = np.zeros((len(samples), width), dtype=np.int64)
    for row, sample in enumerate(samples):
        token_ids[row, : len(sample)] = sample.token_ids
        mask[row, : len(sample)] = 1
    targets = [np.flatnonzero(sample.weights) for sample in samples]

    def chosen(name: str, kind: type) -> Tensor:
        parts = [getattr(s, name)[own] for s, own in zip(samples, targets, strict=True)]
        return torch.from_numpy(np.concatenate(parts).astype(kind))

    return PaddedBatch(
        token_ids=torch.from_numpy(token_ids),
        mask=torch.from_numpy(mask),
        rows=torch.from_numpy(np.repeat(np.arange(len(samples)), [len(own) for own in targets])),
        columns=torch.from_numpy(np.concatenate(targets)),
        behaviour_logprobs=chosen("behaviour_logprobs", np.float32),
        action_ids=chosen("action_ids", np.int64),
        versions=chosen("versions", np.int64),
    )


def plan_batches(
    segments: Sequence[PackableSegment], *, rows: int, layout: Layout
) -> list[tuple[Sequence[PackableSegment], int]]:
    """The samples of each micro-batch, and the tokens that they are padded to.

    Args:
        segments: to be learnt.
        rows: samples of a micro-batch.
        layout: how segments become samples.
    """
    samples = list(segments)
    if layout == "steps":
        samples = [sample for segment in segments for sample in samples_by_step(segment)]
    if layout == "segments_by_length":
        samples.sort(key=len)
    parts = [samples[start : start + rows] for start in range(0, len(samples), rows)]
    longest = max(map(len, samples))
    return [(part, longest if layout == "steps" else max(map(len, part))) for part in parts]


def count_tokens(plan: Sequence[tuple[Sequence[PackableSegment], int]]) -> int:
    """Tokens that go through the model, padding included."""
    return sum(len(part) * width for part, width in plan)


class PaddedStep:
    """Turns batches into optimizer steps on padded samples."""

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        *,
        config: Learner,
        objective: Objective,
        rows: int,
        half: bool = False,
    ) -> None:
        """Load the stock model.

        Args:
            folder: of the model.
            device: where it computes.
            config: of the optimizer, and whether to checkpoint activations.
            objective: what is minimised.
            rows: samples of a micro-batch.
            half: compute in bfloat16.
        """
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
        self._model: nn.Module = model.to(device).train()
        if config.activation_checkpointing != "none":
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self._optimizer = PolicyOptimizer(self._model, config)
        self._device = device
        self._config = config
        self._objective = objective
        self._rows = rows
        self._half = half

    def run(
        self,
        trajectories: Sequence[Trajectory],
        *,
        layout: Layout,
        most_batches: int | None = None,
    ) -> PaddedResult:
        """Learn from one batch, or from its first ``most_batches`` micro-batches only."""
        batch = build_batch(trajectories, learner_version=0, objective=self._objective)
        plan = plan_batches(batch.segments, rows=self._rows, layout=layout)
        advantages = torch.from_numpy(batch.advantages).to(self._device)
        began = time.perf_counter()
        losses = [
            self._learn(pad_right(part, width=width), advantages, batch)
            for part, width in plan[:most_batches]
        ]
        pass_seconds = time.perf_counter() - began
        return PaddedResult(
            batches=len(losses),
            pass_seconds=pass_seconds,
            loss=sum(losses),
            gradient_norm=self._optimizer.step().gradient_norm,
        )

    def _learn(self, padded: PaddedBatch, advantages: Tensor, batch: Batch) -> float:
        here = {name: value.to(self._device) for name, value in vars(padded).items()}
        sampled = SampledActions(
            behaviour_logprobs=here["behaviour_logprobs"],
            action_ids=here["action_ids"],
            versions=here["versions"],
            advantages=advantages,
            learner_version=0,
            max_staleness=self._config.max_staleness,
        )
        loss = policy_loss(
            self._logprobs(here),
            sampled,
            objective=self._objective,
            normalisers=Normalisers(tokens=batch.num_action_tokens, actions=batch.num_actions),
        ).loss
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _logprobs(self, here: dict[str, Any]) -> Tensor:
        """[N], of the targets."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            output = self._model(
                input_ids=here["token_ids"], attention_mask=here["mask"], use_cache=False
            )
        rows, columns = here["rows"], here["columns"]
        logits = output.logits[rows, columns - 1].float()
        wanted = here["token_ids"][rows, columns]
        return torch.log_softmax(logits, dim=-1).gather(-1, wanted[:, None]).squeeze(-1)
