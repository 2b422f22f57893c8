"""The tensors of a GGUF file under their Hugging Face names, de-quantised block by block."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    TensorNameMap,
    dequantize,
    get_tensor_name_map,
)
from numpy.typing import NDArray

from common.errors import InputError
from launch.models.gguf.file import StoredTensor
from learner.checkpoints.model_files import Weight
from learner.checkpoints.number_formats import Raw, convert
from learner.engine.model_shape import ModelShape, shape_of

_BLOCK_NUMBERS = 4 << 20
_SUFFIXES = (".weight", ".bias")


def hugging_face_weights(
    tensors: Mapping[str, StoredTensor], description: Mapping[str, Any], number_format: str
) -> list[Weight]:
    """All tensors that a model folder holds, ready to be written.

    Args:
        tensors: of the file, by name.
        description: of the model, as ``config.json`` has it.
        number_format: F32, BF16 or F16.

    Raises:
        InputError: a tensor is missing, of another shape, of an unknown type, or of no use.
    """
    shape = shape_of(description)
    names = _names(shape, description["model_type"])
    _check_tensors(tensors, {names[ours]: size for ours, size in shape.tensors().items()})
    is_llama = description["model_type"] == "llama"
    return [
        Weight(
            name=ours,
            shape=size,
            blocks=_blocks(tensors[names[ours]], _order(ours, shape, is_llama), number_format),
        )
        for ours, size in shape.tensors().items()
    ]


def _names(shape: ModelShape, family: str) -> dict[str, str]:
    """Names in the file, by Hugging Face name."""
    known = get_tensor_name_map(_architecture(family), shape.layers)
    return {ours: _name(known, ours) for ours in shape.tensors()}


def _architecture(family: str) -> MODEL_ARCH:
    return next(key for key, name in MODEL_ARCH_NAMES.items() if name == family)


def _name(known: TensorNameMap, ours: str) -> str:
    name = known.get_name(ours, try_suffixes=_SUFFIXES)
    if name is None:
        raise InputError(f"tensor {ours} has no name in such files")
    return name


def _check_tensors(
    tensors: Mapping[str, StoredTensor], wanted: Mapping[str, tuple[int, ...]]
) -> None:
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise InputError(f"tensor {missing[0]} is missing{_more(missing)}")
    if strange := sorted(tensors.keys() - wanted.keys()):
        raise InputError(
            f"tensor {strange[0]} is not of a model with this architecture{_more(strange)}"
        )
    for name, size in wanted.items():
        if tensors[name].shape != size:
            raise InputError(f"tensor {name} is {list(tensors[name].shape)}, expected {list(size)}")
        _check_type(tensors[name])


def _more(names: list[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""


def _check_type(tensor: StoredTensor) -> None:
    """De-quantise its first row."""
    try:
        _numbers(tensor, tensor.rows[:1])
    except (NotImplementedError, ValueError, TypeError) as error:
        raise InputError(
            f"tensor {tensor.name} is stored as {tensor.type_name}, which cannot be read back to "
            f"numbers here ({error!s:.100}); use a file with another quantisation"
        ) from error


def _numbers(tensor: StoredTensor, rows: NDArray[Any]) -> NDArray[np.float32]:
    kind = GGMLQuantizationType[tensor.type_name]
    return np.ascontiguousarray(dequantize(rows, kind), dtype=np.float32)


def _blocks(
    tensor: StoredTensor, order: NDArray[np.intp] | None, number_format: str
) -> Callable[[], Iterator[Raw]]:
    """Makes the bits of a tensor, a few MiB at a time."""

    def blocks() -> Iterator[Raw]:
        rows = tensor.rows if order is None else tensor.rows[order]
        step = max(1, _BLOCK_NUMBERS // max(1, int(np.prod(tensor.shape[1:]))))
        for start in range(0, len(rows), step):
            numbers = _numbers(tensor, rows[start : start + step])
            yield convert(numbers.view(np.uint32), "F32", number_format)

    return blocks


def _order(ours: str, shape: ModelShape, is_llama: bool) -> NDArray[np.intp] | None:
    """The rows of a tensor in our order; None where they are.

    llama.cpp rotates neighbouring numbers of queries and keys of the Llama family, transformers
    those half a head apart, so its converter (``LlamaModel.permute`` in convert_hf_to_gguf.py)
    interleaves the halves of each head; this takes them apart again.
    """
    if not is_llama or ".self_attn." not in ours:
        return None
    if ".q_proj." in ours:
        rows, heads = shape.queries, shape.heads
    elif ".k_proj." in ours:
        rows, heads = shape.keys, shape.key_heads
    else:
        return None
    interleaved = np.arange(rows).reshape(heads, rows // heads // 2, 2)
    return interleaved.swapaxes(1, 2).reshape(rows)
