"""Sizes of a model, read from its config.json alone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.config import Lora
from common.errors import ConfigError


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
        targets = adapter_targets(lora, layers)
        return self.layers * lora.rank * sum(sum(layers[name]) for name in targets)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all tensors that weights files hold, by Hugging Face name; tied ones once."""
        result: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, self.hidden),
            "model.norm.weight": (self.hidden,),
        }
        if not self.tied:
            result["lm_head.weight"] = (self.vocabulary, self.hidden)
        for number in range(self.layers):
            of_layer = self._tensors_of_layer()
            result |= {f"model.layers.{number}.{name}": size for name, size in of_layer.items()}
        return result

    def _tensors_of_layer(self) -> dict[str, tuple[int, ...]]:
        has_bias = {
            "q_proj": self.query_bias,
            "k_proj": self.query_bias,
            "v_proj": self.query_bias,
            "o_proj": self.output_bias,
        }
        result: dict[str, tuple[int, ...]] = {
            "input_layernorm.weight": (self.hidden,),
            "post_attention_layernorm.weight": (self.hidden,),
        }
        for name, (inputs, outputs) in self.linear_layers.items():
            place = "self_attn" if name in has_bias else "mlp"
            result[f"{place}.{name}.weight"] = (outputs, inputs)
            if has_bias.get(name, self.mlp_bias):
                result[f"{place}.{name}.bias"] = (outputs,)
        if self.head_norms:
            result["self_attn.q_norm.weight"] = (self.head_norms // 2,)
            result["self_attn.k_norm.weight"] = (self.head_norms // 2,)
        return result


ALL_LINEAR = "all-linear"
"""What PEFT calls all linear layers of the decoder layers."""


def adapter_targets(lora: Lora, layers: Iterable[str]) -> tuple[str, ...]:
    """Last names of the layers that get an adapter, of a model with these ``layers``.

    Raises:
        ConfigError: a target is none of them.
    """
    known = tuple(dict.fromkeys(layers))
    if ALL_LINEAR in lora.targets:
        return known
    missing = sorted(set(lora.targets) - set(known))
    if not lora.targets:
        raise ConfigError(f"model.lora.targets is empty; name some of {', '.join(sorted(known))}")
    if missing:
        raise ConfigError(
            f"model.lora.targets names {', '.join(missing)}, but the model has no such linear "
            f"layer; it has {', '.join(sorted(known))}, or say '{ALL_LINEAR}'"
        )
    return lora.targets


def check_adapters(lora: Lora, layers: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """Check that adapters fit a model.

    Args:
        lora: the adapters.
        layers: inputs and outputs of the linear layers, by last name.

    Returns:
        Last names of the layers that get one.

    Raises:
        ConfigError: a target names no layer, or the rank is larger than one.
    """
    targets = adapter_targets(lora, layers)
    for name in targets:
        inputs, outputs = layers[name]
        if lora.rank > min(inputs, outputs):
            raise ConfigError(
                f"model.lora.rank is {lora.rank}, but '{name}' is [{outputs}, {inputs}]; choose "
                f"at most {min(inputs, outputs)}"
            )
    return targets


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
