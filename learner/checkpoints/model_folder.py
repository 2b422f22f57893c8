"""Writes the weights of a model in memory as a plain Hugging Face folder."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from learner.checkpoints.model_files import MAX_FILE_BYTES, Weight, write_model_files
from learner.checkpoints.number_formats import FORMAT_OF_DTYPE, Raw

_VIEWS = {torch.float32: torch.uint32, torch.bfloat16: torch.uint16, torch.float16: torch.uint16}


def write_model_folder(
    state: dict[str, Tensor],
    source: Path,
    destination: Path,
    dtype: torch.dtype,
    *,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write weights beside config and tokenizer of the model they come from.

    Args:
        state: tensors by Hugging Face name, as from ``learner.engine.sharding.full_state_dict``.
        source: folder the model was loaded from.
        destination: folder to write; made if needed, other files in it stay.
        dtype: type of the saved weights: float32, bfloat16 or float16.
        max_file_bytes: a larger model is split into several files.
    """
    weights = [
        Weight(name=name, shape=tuple(tensor.shape), blocks=lambda t=tensor: _bits(t, dtype))  # type: ignore[misc]
        for name, tensor in state.items()
    ]
    number_format = FORMAT_OF_DTYPE[str(dtype).removeprefix("torch.")]
    write_model_files(weights, source, destination, number_format, max_file_bytes=max_file_bytes)


def _bits(tensor: Tensor, dtype: torch.dtype) -> Iterator[Raw]:
    converted = tensor.detach().to("cpu", dtype).contiguous()
    yield converted.view(_VIEWS[dtype]).numpy()
