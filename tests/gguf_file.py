"""Writes the models of tests as GGUF files, as llama.cpp's converter does."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from common.model_config import read_model_config

Numbers = NDArray[np.float32]
BLOCK = 32

MERGED = ("Ā", "ā")
"""The one merge, of bytes that no text has; a list of merges may not be empty."""


def write_gguf(
    folder: Path,
    file: Path,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.Q8_0,
    *,
    architecture: str = "",
    left_out: tuple[str, ...] = (),
    **values: Any,
) -> Path:
    """Write a model folder of ``tests.tiny_text_model`` in float32 as a GGUF file.

    Args:
        folder: of the model.
        file: to write.
        kind: of the matrices' numbers, where their rows are whole blocks; the rest is F32.
        architecture: another than that of the model.
        left_out: tensors that are not written.
        values: metadata over the model's own, ``__`` for a dot.
    """
    config = read_model_config(folder)
    family = str(config["model_type"])
    writer = gguf.GGUFWriter(file, architecture or family)
    _add_sizes(writer, config)
    _add_tokenizer(writer, folder)
    for name, value in values.items():
        _add_value(writer, name.replace("__", "."), value)
    names = _names(family, int(config["num_hidden_layers"]))
    for name, numbers in load_file(folder / "model.safetensors").items():
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert theirs is not None
        if theirs not in left_out:
            data = _interleaved(numbers, name, config)
            stored = stored_as(numbers, kind)
            writer.add_tensor(theirs, gguf.quantize(data, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def stored_as(numbers: Numbers, kind: gguf.GGMLQuantizationType) -> gguf.GGMLQuantizationType:
    """The type a tensor gets: matrices with rows of whole blocks ``kind``, others F32."""
    fits = numbers.ndim == 2 and numbers.shape[-1] % BLOCK == 0
    return kind if fits else gguf.GGMLQuantizationType.F32


def read_back(numbers: Numbers, kind: gguf.GGMLQuantizationType) -> Numbers:
    """What is left of a tensor that was stored: the reference of the gguf package."""
    stored = stored_as(numbers, kind)
    return gguf.dequantize(gguf.quantize(numbers, stored), stored)


def _names(family: str, layers: int) -> gguf.TensorNameMap:
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    return gguf.get_tensor_name_map(kind, layers)


def _add_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if config["model_type"] == "llama":
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_vocab_size(config["vocab_size"])


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path) -> None:
    """Letters as normal tokens, tags as control tokens, unused embeddings between."""
    written = json.loads((folder / "tokenizer.json").read_text())
    special = {token["content"]: token["id"] for token in written["added_tokens"]}
    ids = written["model"]["vocab"] | special
    by_id = {number: token for token, number in ids.items()}
    size = read_model_config(folder)["vocab_size"]
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(size)]
    tokens[-1] = "".join(MERGED)
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [
            kinds.CONTROL if token in special else kinds.NORMAL if token in ids else kinds.UNUSED
            for token in tokens
        ]
    )
    writer.add_token_merges([" ".join(MERGED)])
    writer.add_eos_token_id(special["<|endoftext|>"])
    writer.add_chat_template((folder / "chat_template.jinja").read_text())


def _add_value(writer: gguf.GGUFWriter, name: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_uint32(name, value)


def _interleaved(numbers: Numbers, name: str, config: dict[str, Any]) -> Numbers:
    """Queries and keys of the Llama family as ``LlamaModel.permute`` of llama.cpp leaves them."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    part = name.split(".")[-2]
    if config["model_type"] != "llama" or part not in heads:
        return numbers
    number = config[heads[part]]
    halves = numbers.reshape(number, 2, len(numbers) // number // 2, *numbers.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(numbers.shape))
