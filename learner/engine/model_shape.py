"""Sizes of a model, read from its config.json alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.config import Lora


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """What decides how many numbers a model of the Llama or Qwen families holds and makes.

    Attributes:
        vocabulary, hidden, intermediate, layers: sizes of the model.
        queries: numbers in the queries of a token, heads times head size.
        keys: numbers in the keys of a token, key heads times head size.
        heads, key_heads: of attention.
        tied: whether embeddings and output layer are one tensor.
        head_norms: numbers in the norms of queries and keys in a layer.
        query_bias, output_bias, mlp_bias: which linear layers have one.
    """

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    queries: int
    keys: int
    heads: int
    key_heads: int
    tied: bool
    head_norms: int
    query_bias: bool
    output_bias: bool
    mlp_bias: bool

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear layers in a decoder layer, by name."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def layer_parameters(self) -> int:
        """Numbers in a decoder layer."""
        count = sum(inputs * outputs for inputs, outputs in self.linear_layers.values())
        count += 2 * self.hidden + self.head_norms
        count += self.query_bias * (self.queries + 2 * self.keys) + self.output_bias * self.hidden
        return count + self.mlp_bias * (2 * self.intermediate + self.hidden)

    @property
    def root_parameters(self) -> int:
        """Numbers outside the decoder layers: embeddings, output layer, last norm."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """All numbers of the model."""
        return self.root_parameters + self.layers * self.layer_parameters

    def adapter_parameters(self, lora: Lora) -> int:
        """Numbers in the adapters that ``lora`` adds."""
        layers = self.linear_layers
        per_layer = sum(sum(layers[name]) for name in lora.targets if name in layers)
        return self.layers * lora.rank * per_layer


def shape_of(description: Mapping[str, Any]) -> ModelShape:
    """The shape of a model from its config.json.

    Raises:
        KeyError: the description lacks a size.
    """
    heads = int(description["num_attention_heads"])
    key_heads = int(description.get("num_key_value_heads") or heads)
    hidden = int(description["hidden_size"])
    head_size = int(description.get("head_dim") or hidden // heads)
    family = description["model_type"]
    attention_bias = bool(description.get("attention_bias", False))
    return ModelShape(
        vocabulary=int(description["vocab_size"]),
        hidden=hidden,
        intermediate=int(description["intermediate_size"]),
        layers=int(description["num_hidden_layers"]),
        queries=heads * head_size,
        keys=key_heads * head_size,
        heads=heads,
        key_heads=key_heads,
        tied=bool(description.get("tie_word_embeddings", False)),
        head_norms=2 * head_size if family == "qwen3" else 0,
        query_bias=family == "qwen2" or attention_bias,
        output_bias=family != "qwen2" and attention_bias,
        mlp_bias=bool(description.get("mlp_bias", False)),
    )
