"""Parameters and floating-point operations of a model, from its configuration alone.

Operations are those of matrix products, a multiplication and an addition counted as two; norms,
activations and the optimizer are left out. What activation checkpointing computes again is not
counted either: utilisation is that of the model, not of the machine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from learner.packs.balance import CostModel, cost_of_model

BACKWARD = 2.0
"""Operations of a backward pass over those of its forward pass: gradients by both factors."""

_FAMILIES = ("qwen2", "qwen3", "llama")

_PEAKS = {
    "A100": 312e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""Dense bfloat16 operations per second, from the data sheets; longer names come first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameters:
    """Numbers of parameters by part.

    Attributes:
        embedding: input embeddings; of tied weights they are the output layer as well.
        attention: projections with their biases, and norms of queries and keys.
        mlp: gated, all three matrices.
        norms: of the layers, and the last one.
        output: the output layer; 0 if its weights are tied.
    """

    embedding: int
    attention: int
    mlp: int
    norms: int
    output: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, part.name) for part in fields(self))


def count_parameters(config: Mapping[str, Any]) -> Parameters:
    """Count the parameters of a Qwen2, Qwen3 or Llama model.

    Args:
        config: as in its config.json, with ``model_type``.

    Raises:
        ValueError: the model is of another family.
    """
    family = config["model_type"]
    if family not in _FAMILIES:
        raise ValueError(f"model_type must be one of {', '.join(_FAMILIES)}, got {family!r}")
    hidden, depth = config["hidden_size"], config["num_hidden_layers"]
    vocabulary = hidden * config["vocab_size"]
    return Parameters(
        embedding=vocabulary,
        attention=depth * _attention(config, family),
        mlp=depth * _mlp(config),
        norms=(2 * depth + 1) * hidden,
        output=0 if config.get("tie_word_embeddings", False) else vocabulary,
    )


def _attention(config: Mapping[str, Any], family: str) -> int:
    """Of one layer."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or hidden // heads
    key_heads = config.get("num_key_value_heads") or heads
    inner = size * (heads + 2 * key_heads)
    result: int = hidden * inner + heads * size * hidden
    biased = bool(config.get("attention_bias", False))
    if family == "qwen2" or biased:
        result += inner
    if family != "qwen2" and biased:
        result += hidden
    return result + (2 * size if family == "qwen3" else 0)


def _mlp(config: Mapping[str, Any]) -> int:
    """Of one layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    biases: int = 2 * inner + hidden if config.get("mlp_bias", False) else 0
    matrices: int = 3 * hidden * inner
    return matrices + biases


def forward_flops(
    config: Mapping[str, Any], lengths: Iterable[int], targets: int, *, causal: bool = True
) -> float:
    """Operations of a forward pass over segments that do not see each other.

    With the a, b and c of ``learner.packs.balance.cost_of_model``, lengths L and N targets:

        sum over segments of (a L + b L^2) + c N        causal: a token sees half of the others
        sum over segments of (a L + 2 b L^2) + c N      every token sees every other

    Args:
        config: as in the model's config.json.
        lengths: tokens of each segment.
        targets: tokens of which logits are computed.
        causal: whether scores above the diagonal are left out.
    """
    cost = cost_of_model(config)
    if not causal:
        cost = CostModel(
            per_token=cost.per_token,
            per_token_squared=2 * cost.per_token_squared,
            per_target=cost.per_target,
        )
    return cost.of_pack(lengths, targets)


def training_flops(config: Mapping[str, Any], lengths: Iterable[int], targets: int) -> float:
    """Operations of a forward and a backward pass with causal attention."""
    return (1 + BACKWARD) * forward_flops(config, lengths, targets)


def flops_per_token(config: Mapping[str, Any], length: int) -> float:
    """Operations of training per token of one segment of which every token is a target."""
    return training_flops(config, [length], length) / length


def flops_per_token_of_prime_rl(config: Mapping[str, Any], length: int) -> float:
    """Operations per token as the published figures of prime-rl count them.

        6 (weights of all projections, of the MLPs and of the output layer) + 12 D H length

    with D layers of hidden size H. That differs from ``flops_per_token`` twice: attention counts
    as if every token saw every other, and as if heads had a size of H / number of heads, which
    those of Qwen3-0.6B exceed by a factor of two.

    Args:
        config: as in the model's config.json.
        length: tokens of a sequence.

    Source:
        ``src/prime_rl/trainer/perf.py`` in github.com/PrimeIntellect-ai/prime-rl, whose
        benchmarks of January 2026 (11.9 k tokens/s and 11.1 %; 10.15 k tokens/s and 26.8 %) this
        formula reproduces with a peak of 989e12.
    """
    cost = cost_of_model(config)
    weights = (cost.per_token + cost.per_target) / 2
    attention = 12.0 * config["num_hidden_layers"] * config["hidden_size"] * length
    return 6 * weights + float(attention)


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 operations per second of a GPU as torch names it; None if not known."""
    for name, peak in _PEAKS.items():
        if all(word in device_name for word in name.split()):
            return peak
    return None


def utilisation(
    flops: float, seconds: float, peak: float | None, *, devices: int = 1
) -> float | None:
    """Model FLOP utilisation (MFU) in [0, 1]; None where the peak is not known.

    Args:
        flops: operations of the model in that time, over all devices.
        seconds: wall time.
        peak: operations per second of one device.
        devices: how many there are.
    """
    return None if peak is None else flops / seconds / (peak * devices)
