"""The config.json of a model from what its GGUF file says: no I/O.

The keys are those of the GGUF specification (https://github.com/ggml-org/ggml, docs/gguf.md).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from common.errors import InputError
from common.model_config import FAMILIES

EMBEDDINGS = "token_embd.weight"
OUTPUT = "output.weight"

_SIZES = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
_TOKENS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "padding_token_id": "pad_token_id",
}
_DEFAULT_ROPE_BASE = 10_000.0


def model_description(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
    """What ``config.json`` has to say of the model.

    Args:
        metadata: values of the file by key.
        tensors: shapes of its tensors by name.

    Returns:
        Keys and values as transformers names them, ``model_type`` among them.

    Raises:
        InputError: it is of a family that is not supported, lacks a size, or scales positions.
    """
    family = _family(metadata)
    _check_positions(metadata, tensors, family)
    values = {ours: _size(metadata, f"{family}.{key}") for key, ours in _SIZES.items()}
    heads = values["num_attention_heads"]
    head_size = metadata.get(f"{family}.attention.key_length", values["hidden_size"] // heads)
    _check_rotation(metadata, family, head_size)
    return {
        "model_type": family,
        **values,
        **_biases(tensors, family),
        **_special_tokens(metadata),
        "num_key_value_heads": metadata.get(f"{family}.attention.head_count_kv", heads),
        "head_dim": head_size,
        "rms_norm_eps": _norm_epsilon(metadata, family),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(metadata.get(f"{family}.rope.freq_base", _DEFAULT_ROPE_BASE)),
        },
        "vocab_size": _vocabulary(tensors),
        "tie_word_embeddings": OUTPUT not in tensors,
    }


def _family(metadata: Mapping[str, Any]) -> str:
    family = metadata.get("general.architecture")
    if family not in FAMILIES:
        raise InputError(
            f"general.architecture is {family!r:.60}; supported are {', '.join(FAMILIES)}"
        )
    return str(family)


def _size(metadata: Mapping[str, Any], key: str) -> int:
    value = metadata.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise InputError(f"{key} must be a whole number above 0, got {value!r:.60}")
    return value


def _vocabulary(tensors: Mapping[str, tuple[int, ...]]) -> int:
    if EMBEDDINGS not in tensors:
        raise InputError(f"there is no tensor {EMBEDDINGS}, the embeddings")
    return tensors[EMBEDDINGS][0]


def _norm_epsilon(metadata: Mapping[str, Any], family: str) -> float:
    """It is kept in 32 bits: the shortest decimal number is what the model was published with."""
    key = f"{family}.attention.layer_norm_rms_epsilon"
    value = metadata.get(key)
    if not isinstance(value, float) or not 0 <= value < 1:
        raise InputError(f"{key} must be a number from 0 to 1, got {value!r:.60}")
    return float(f"{value:.7g}")


def _check_positions(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], family: str
) -> None:
    kind = metadata.get(f"{family}.rope.scaling.type", "none")
    scaled = "rope_freqs.weight" in tensors
    if scaled or kind != "none":
        found = "tensor rope_freqs.weight" if scaled else f"{family}.rope.scaling.type {kind!r:.40}"
        raise InputError(
            f"its positions are scaled ({found}), which such a file does not say as transformers "
            "has to know it; use the published folder of the model"
        )


def _check_rotation(metadata: Mapping[str, Any], family: str, head_size: int) -> None:
    key = f"{family}.rope.dimension_count"
    if (rotated := metadata.get(key, head_size)) != head_size:
        raise InputError(f"{key} is {rotated}, expected the size of a head, {head_size}")


def _biases(tensors: Mapping[str, tuple[int, ...]], family: str) -> dict[str, bool]:
    if family == "qwen2":
        return {}
    found = {"attention_bias": "blk.0.attn_q.bias" in tensors}
    return found | ({"mlp_bias": "blk.0.ffn_up.bias" in tensors} if family == "llama" else {})


def _special_tokens(metadata: Mapping[str, Any]) -> dict[str, int | None]:
    return {ours: metadata.get(f"tokenizer.ggml.{key}") for key, ours in _TOKENS.items()}


def ending_tokens(metadata: Mapping[str, Any]) -> Iterator[int]:
    """The tokens that end an answer: that of a text, and of a turn where it is another."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return iter(dict.fromkeys(metadata[key] for key in keys if key in metadata))
