"""Log-probabilities and entropies of tokens straight from hidden states.

The logits of N tokens over a vocabulary of V words would fill [N, V]; here they exist only for
some columns at a time, in the forward pass as in the backward pass, which computes them again.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MOST_LOGITS = {"cpu": 2**19, "cuda": 2**26}
"""Numbers in one chunk of logits: about what a CPU caches; 256 MiB in float32 on a GPU."""

_LEAST_COLUMNS = 128


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
    """

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
            input, self.weight, wanted, temperature=temperature, with_entropy=with_entropy
        )


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    wanted: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
    most_logits: int | None = None,
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

    Returns:
        For all N rows; both parts can be differentiated once.

    Raises:
        ValueError: ``temperature`` is not above 0.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if most_logits is None:
        most_logits = MOST_LOGITS.get(hidden.device.type, MOST_LOGITS["cuda"])
    scores = _LinearLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, weight, wanted, temperature, with_entropy, most_logits
    )
    return TargetScores(*scores)


class _LinearLogprobs(torch.autograd.Function):
    """With z = logits / temperature, p = softmax(z), y the wanted word and H the entropy.

    log p_y = z_y - log sum_j exp z_j           d log p_y / d z_j = [j = y] - p_j
    H = -sum_j p_j log p_j                      d H / d z_j = -p_j (log p_j + H)
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        wanted: Tensor,
        temperature: float,
        with_entropy: bool,
        most_logits: int,
    ) -> tuple[Tensor, Tensor | None]:
        """Sweep the vocabulary, carrying log sum exp z, z_y and H over the words so far."""
        kind = torch.promote_types(hidden.dtype, torch.float32)
        chosen, entropy = (torch.zeros_like(wanted, dtype=kind) for _ in range(2))
        # As good as log 0, but 0 when multiplied with 0.
        normaliser = torch.full_like(chosen, torch.finfo(kind).min / 2)
        for columns in _chunks(len(weight), len(hidden), most_logits):
            z = _scaled_logits(hidden, weight[columns], temperature)
            inside, places = _places(wanted, columns)
            chosen = torch.where(inside, z.gather(-1, places[:, None]).squeeze(-1), chosen)
            part = z.logsumexp(-1)
            joint = torch.logaddexp(normaliser, part)
            if with_entropy:
                entropy = (entropy + joint - normaliser) * (normaliser - joint).exp()
                entropy += _surprise(z, joint)
            normaliser = joint
        entropies = entropy if with_entropy else None
        ctx.save_for_backward(hidden, weight, wanted, normaliser, entropies)
        ctx.temperature, ctx.most_logits = temperature, most_logits
        return chosen - normaliser, entropies

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, to_logprobs: Tensor, to_entropies: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        """Sweep the vocabulary again; a chunk completes its rows of the weight's gradient."""
        hidden, weight, wanted, normaliser, entropies = ctx.saved_tensors
        slope_logprob = to_logprobs[:, None] / ctx.temperature
        slope_entropy = None if to_entropies is None else to_entropies[:, None] / ctx.temperature
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        to_hidden = torch.zeros_like(hidden, dtype=normaliser.dtype) if need_hidden else None
        to_weight = torch.empty_like(weight) if need_weight else None
        for columns in _chunks(len(weight), len(hidden), ctx.most_logits):
            logs = _scaled_logits(hidden, weight[columns], ctx.temperature)
            logs -= normaliser[:, None]
            inside, places = _places(wanted, columns)
            slope = _slope_of_logits(logs, inside, places, slope_logprob, slope_entropy, entropies)
            slope = slope.to(hidden.dtype)
            if to_hidden is not None:
                to_hidden += _product(slope, weight[columns])
            if to_weight is not None:
                to_weight[columns] = _product(slope.T, hidden)
        if to_hidden is not None:
            to_hidden = to_hidden.to(hidden.dtype)
        return to_hidden, to_weight, None, None, None, None


def _surprise(z: Tensor, normaliser: Tensor) -> Tensor:
    """[N], -sum of p log p over the columns; overwrites ``z``."""
    logs = z.sub_(normaliser[:, None])
    return -logs.mul_(logs.exp()).sum(-1)


def _slope_of_logits(
    logs: Tensor,
    inside: Tensor,
    places: Tensor,
    slope_logprob: Tensor,
    slope_entropy: Tensor | None,
    entropies: Tensor | None,
) -> Tensor:
    """[N, columns], derivative by the logits; overwrites ``logs``, which holds log p.

    Args:
        logs: [N, columns], log p.
        inside: [N] bool, the wanted word is among the columns.
        places: [N] int64, its column if so.
        slope_logprob: [N, 1], derivative by log p_y, over the temperature.
        slope_entropy: [N, 1], derivative by H, over the temperature; None without entropies.
        entropies: [N].
    """
    probabilities = logs.exp()
    if slope_entropy is None or entropies is None:
        result = probabilities.mul_(-slope_logprob)
    else:
        pull = logs.add_(entropies[:, None]).mul_(slope_entropy).add_(slope_logprob)
        result = probabilities.mul_(pull).neg_()
    hit = torch.where(inside, slope_logprob.squeeze(-1), 0)
    return result.scatter_add_(-1, places[:, None], hit[:, None])


def _scaled_logits(hidden: Tensor, rows: Tensor, temperature: float) -> Tensor:
    logits = _product(hidden, rows.T)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Matrix product of at least float32, also from half-precision inputs."""
    kind = torch.promote_types(left.dtype, torch.float32)
    if left.is_cuda and left.dtype != kind:
        return torch.mm(left, right, out_dtype=kind)
    return left.to(kind) @ right.to(kind)


def _places(wanted: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """Whether each wanted word is among the columns, and at which of them (0 if not)."""
    inside = (wanted >= columns.start) & (wanted < columns.stop)
    return inside, torch.where(inside, wanted - columns.start, 0)


def _chunks(vocabulary: int, rows: int, most_logits: int) -> Iterator[slice]:
    """Columns whose logits for ``rows`` rows come to about ``most_logits`` numbers."""
    width = max(_LEAST_COLUMNS, most_logits // max(1, rows))
    for start in range(0, vocabulary, width):
        yield slice(start, min(start + width, vocabulary))
