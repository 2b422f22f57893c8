"""Log-probabilities and entropies of tokens straight from hidden states.

The logits of N tokens over a vocabulary of V words would fill [N, V]; here they are computed for
some columns at a time. The backward pass computes them again, but for those that a CPU kept: there
a product costs more than memory, up to KEPT_LOGITS.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from learner.engine.softmax_chunks import (
    KEPT_LOGITS,
    MOST_LOGITS,
    ChunkOptions,
    chunks,
    slope_of_logits,
    sweep,
)


class TargetScores(NamedTuple):
    """What the model says about the N targets of a pack.

    Attributes:
        logprobs: [N] float32, natural log, differentiable.
        entropies: [N] float32, entropy in nats of the distribution each target was drawn from,
            differentiable; None unless asked for.
    """

    logprobs: Tensor
    entropies: Tensor | None


class OutputLayer(nn.Linear):
    """The output layer of a language model, which can go on to log-probabilities.

    It does so in its own forward, and hence within that of the model, where FSDP has gathered
    the weight.

    Attributes:
        compiled: see ``linear_logprobs``.
    """

    compiled: bool = False

    @classmethod
    def of(cls, layer: nn.Linear) -> "OutputLayer":
        """The same layer with the same parameter, tied or not.

        Raises:
            ValueError: the layer has a bias.
        """
        if getattr(layer, "bias", None) is not None:
            raise ValueError(
                "the output layer has a bias; expected a causal language model without one"
            )
        same = cls(layer.in_features, layer.out_features, bias=False, device="meta")
        same.weight = layer.weight
        return same

    def forward(
        self,
        input: Tensor,  # noqa: A002 - the name in nn.Linear
        wanted: Tensor | None = None,
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> Any:
        """Logits [.., V] of hidden states [.., H]; with ``wanted``, see ``linear_logprobs``."""
        if wanted is None:
            return super().forward(input)
        return linear_logprobs(
            input, self.weight, wanted,
            temperature=temperature, with_entropy=with_entropy, compiled=self.compiled,
        )  # fmt: skip


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    wanted: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    most_logits: int | None = None,
    most_kept: int | None = None,
    compiled: bool = False,
) -> TargetScores:
    """Score one word per row: log softmax(hidden @ weight.T / temperature) at ``wanted``.

    Products of half-precision numbers are added up, and everything after them is computed, in
    float32 (in float64 for float64 inputs).

    Args:
        hidden: [N, H], any float type.
        weight: [V, H], of the same type.
        wanted: [N] int64 in [0, V).
        temperature: above 0.
        with_entropy: whether entropies are wanted as well.
        most_logits: numbers in one chunk of logits, MOST_LOGITS of the device unless given;
            never fewer than 128 columns.
        most_kept: logits that stay for the backward pass, KEPT_LOGITS of the device unless given.
        compiled: fuse what follows each matrix product with torch.compile.

    Returns:
        For all N rows; both parts can be differentiated once.

    Raises:
        ValueError: ``temperature`` is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if most_logits is None:
        most_logits = MOST_LOGITS.get(hidden.device.type, MOST_LOGITS["cuda"])
    options = ChunkOptions(temperature, with_entropy, most_logits, compiled)
    if most_kept is None:
        most_kept = KEPT_LOGITS.get(hidden.device.type, 0)
    if not torch.is_grad_enabled() or not (hidden.requires_grad or weight.requires_grad):
        most_kept = 0
    scores = _LinearLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, weight, wanted, options, most_kept // max(1, len(hidden))
    )
    return TargetScores(*scores)


class _LinearLogprobs(torch.autograd.Function):
    """The sums and derivatives are in ``learner.engine.softmax_chunks``."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        wanted: Tensor,
        options: ChunkOptions,
        most_kept: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Sweep the vocabulary, carrying log sum exp z, z_y and H over the words so far.

        Of the logits, up to ``most_kept`` columns stay for the backward pass.
        """
        advance = _compiled(sweep) if options.compiled else sweep
        kind = torch.promote_types(hidden.dtype, torch.float32)
        chosen, entropies = (torch.zeros_like(wanted, dtype=kind) for _ in range(2))
        # As good as log 0, but 0 when multiplied with 0.
        normaliser = torch.full_like(chosen, torch.finfo(kind).min / 2)
        ctx.kept = []
        for columns in chunks(len(weight), len(hidden), options.most_logits):
            logits = _product(hidden, weight[columns].T)
            if columns.stop <= most_kept:
                ctx.kept.append(logits)
            chosen, normaliser, entropies = advance(
                logits, wanted - columns.start, chosen, normaliser, entropies, options
            )
        kept = entropies if options.with_entropy else None
        ctx.save_for_backward(hidden, weight, wanted, normaliser, kept)
        ctx.options = options
        return chosen - normaliser, kept

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_logprobs: Tensor, to_entropies: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """Sweep the vocabulary again; a chunk completes its rows of the weight's gradient."""
        hidden, weight, wanted, normaliser, entropies = ctx.saved_tensors
        # What was returned from forward still knows its function, which compilers stumble over.
        entropies = None if entropies is None else entropies.detach()
        options: ChunkOptions = ctx.options
        slope = _compiled(slope_of_logits) if options.compiled else slope_of_logits
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        to_hidden = torch.zeros_like(hidden, dtype=normaliser.dtype) if need_hidden else None
        to_weight = torch.empty_like(weight) if need_weight else None
        kept, ctx.kept = ctx.kept[::-1], []
        for columns in chunks(len(weight), len(hidden), options.most_logits):
            logits = kept.pop() if kept else _product(hidden, weight[columns].T)
            to_logits = slope(
                logits, wanted - columns.start, normaliser, entropies,
                to_logprobs, to_entropies, options,
            ).to(hidden.dtype)  # fmt: skip
            if to_hidden is not None:
                to_hidden += _product(to_logits, weight[columns])
            if to_weight is not None:
                to_weight[columns] = _product(to_logits.T, hidden)
        if to_hidden is not None:
            to_hidden = to_hidden.to(hidden.dtype)
        return to_hidden, to_weight, None, None, None


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Fused into one kernel or two; chunks come in many sizes."""
    return torch.compile(function, dynamic=True)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of at least float32, also from half-precision inputs."""
    kind = torch.promote_types(left.dtype, torch.float32)
    if left.is_cuda and left.dtype != kind:
        return torch.mm(left, right, out_dtype=kind)
    return left.to(kind) @ right.to(kind)
