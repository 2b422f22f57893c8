"""What has to hold of a model folder for learner and policy server to load it, without loading it.

Reads headers, a tokenizer and at most two tensors, so that a folder that training or vLLM would
refuse after half a minute is refused at once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Lora
from common.errors import InputError
from common.model_config import CONFIG, longest_context, read_model_config
from common.weight_index import INDEX, read_index, weight_files
from learner.checkpoints.shard_files import TensorFolder
from learner.engine.model_shape import ModelShape, check_adapters, shape_of
from learner.engine.tokenizer import TOKENIZER, check_vocabulary

OUTPUT = "lm_head.weight"
INPUT = "model.embed_tokens.weight"
UNUSED = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
"""How the names of tensors end that older models hold and nobody reads."""

_TRAINABLE = ("F64", "F32", "F16", "BF16")
_BLOCK_BYTES = 16 << 20
_NO_ADAPTERS = Lora()


def check_model(folder: Path, *, max_context: int = 1, lora: Lora = _NO_ADAPTERS) -> None:
    """Check config, tokenizer, weights, context and adapters against each other.

    Args:
        folder: of the model.
        max_context: tokens it has to take.
        lora: adapters it gets.

    Raises:
        InputError: a file is missing or damaged, or the files do not belong together; names file,
            key and tensor.
        ConfigError: it cannot have such adapters.
    """
    description = read_model_config(folder)
    check_context(description, folder / CONFIG, max_context)
    shape = shape_of(description)
    _check_heads(shape, folder / CONFIG)
    if lora.rank:
        check_adapters(lora, shape.linear_layers)
    check_vocabulary(folder / TOKENIZER, shape.vocabulary)
    files = open_weights(folder)
    faults = tensor_faults(shape.tensors(), files)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"the weights in '{folder}' do not fit its {CONFIG}: {faults[0]}{more}")
    if fault := tied_fault(files, tied=shape.tied):
        raise InputError(f"model folder '{folder}': {fault}")


def check_context(description: Mapping[str, Any], path: Path, max_context: int) -> None:
    """Check that a model takes ``max_context`` tokens.

    Raises:
        InputError: it was made for less, or attends to fewer tokens in some layers.
    """
    longest = longest_context(description, path)
    if longest is not None and longest < max_context:
        raise InputError(
            f"model.max_context is {max_context}, but the model in {path.parent} was made for at "
            f"most {longest} tokens (max_position_embeddings and the scaling of positions)"
        )
    window = description.get("sliding_window")
    if description.get("use_sliding_window") and isinstance(window, int) and window < max_context:
        raise InputError(
            f"model.max_context is {max_context}, but layers of the model in {path.parent} attend "
            f"to the last {window} tokens only (sliding_window); lower model.max_context to that"
        )


def open_weights(folder: Path) -> TensorFolder:
    """The tensors of the files that learner and policy server are going to read.

    Raises:
        InputError: files are missing or damaged, or lack what the index says they hold.
    """
    files = TensorFolder(folder, weight_files(folder))
    if (folder / INDEX).is_file():
        for tensor, name in read_index(folder).items():
            if tensor not in files.names():
                raise InputError(
                    f"'{folder / INDEX}' says that {name} holds '{tensor}', which it does not; "
                    "index and files are of different models"
                )
    return files


def tensor_faults(wanted: Mapping[str, tuple[int, ...]], files: TensorFolder) -> list[str]:
    """How the tensors in ``files`` differ from those of the architecture; vLLM refuses each."""
    found = {name: files.whole(name) for name in files.names()}
    strange = found.keys() - wanted - {OUTPUT}
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found)]
    faults += [f"{n} is not of this model" for n in sorted(strange) if not n.endswith(UNUSED)]
    faults += [
        f"{name} is {list(found[name].whole)}, the config asks for {list(wanted[name])}"
        for name in sorted(wanted.keys() & found)
        if wanted[name] != found[name].whole
    ]
    return faults + [
        f"{name} is stored as {found[name].format}, expected one of {', '.join(_TRAINABLE)}; "
        "quantised models cannot be trained, use the original"
        for name in sorted(wanted.keys() & found)
        if found[name].format not in _TRAINABLE
    ]


def tied_fault(files: TensorFolder, *, tied: bool) -> str:
    """Why the output layer is not what the config says; empty if it is."""
    present = OUTPUT in files.names()
    if not tied:
        return "" if present else f"config says untied, but there is no {OUTPUT}"
    if present and not same_tensor(files, files, OUTPUT, INPUT):
        return (
            f"config says tied, but {OUTPUT} differs from {INPUT}; one would be ignored; set "
            f"tie_word_embeddings to false in {CONFIG}, or delete {OUTPUT}"
        )
    return ""


def same_tensor(left: TensorFolder, right: TensorFolder, name: str, other: str) -> bool:
    """Whether two tensors have the same shape and bits."""
    if left.whole(name).shape != right.whole(other).shape:
        return False
    blocks = zip(left.blocks(name, _BLOCK_BYTES), right.blocks(other, _BLOCK_BYTES), strict=True)
    return all(np.array_equal(a, b) for a, b in blocks)


def _check_heads(shape: ModelShape, path: Path) -> None:
    if shape.heads % shape.key_heads:
        raise InputError(
            f"'{path}': num_key_value_heads is {shape.key_heads}, which does not divide "
            f"num_attention_heads, {shape.heads}"
        )
