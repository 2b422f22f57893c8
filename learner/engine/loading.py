"""Fills a sharded model from safetensors files, each rank reading its own rows only.

The model is built without memory, sharded, and then given memory for its shards. No rank ever
holds the whole model, on no device; the largest thing read at once is its part of one tensor.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from common.errors import InputError
from common.weight_index import INDEX, read_index, weight_files
from learner.engine.attention import PACKED_ATTENTION, register_packed_attention
from learner.engine.lora import is_adapter
from learner.engine.mesh import Rank
from learner.engine.model import POLICIES, check_model_folder
from learner.engine.shards import local_rows

log = logging.getLogger(__name__)

_FORMATS = ("F64", "F32", "F16", "BF16")
_ROTARY = "model.rotary_emb"


def build_empty(path: str | Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Build the policy of a model folder on torch's ``meta`` device, without any weights.

    Args:
        path: local Hugging Face folder.
        dtype: how the weights are going to be stored.

    Raises:
        InputError: see ``learner.engine.model.load_model``.
    """
    folder = Path(path)
    family = check_model_folder(folder)
    register_packed_attention()
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        with torch.device("meta"):
            model: PreTrainedModel = POLICIES[family]._from_config(
                config, dtype=dtype, attn_implementation=PACKED_ATTENTION
            )
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(f"model folder '{folder}' cannot be loaded: {error}") from error
    return model.train()


def fill(model: PreTrainedModel, path: str | Path, rank: Rank, *, cpu_offload: bool) -> None:
    """Give a sharded model without weights those of a model folder.

    Adapters get memory, but no values: see ``learner.engine.lora.reset_adapters``.

    Args:
        model: from ``build_empty``, then sharded.
        path: the same folder, with ``model.safetensors`` or several such files and their index.
        rank: this process.
        cpu_offload: as the model was sharded.

    Raises:
        InputError: files or tensors are missing, damaged, of another shape or quantised.
    """
    folder = Path(path)
    model.to_empty(device=torch.device("cpu") if cpu_offload else rank.device)
    _restore_rotary_tables(model, rank.device)
    files = _files_of(folder)
    wanted = _places(model, files, folder)
    for file, parameters in wanted.items():
        try:
            with safe_open(folder / file, framework="pt", device="cpu") as tensors:
                for stored, name, parameter in parameters:
                    _read_rows(tensors, stored, parameter, f"'{folder / file}': tensor '{name}'")
        except (OSError, SafetensorError) as error:
            raise InputError(f"'{folder / file}' cannot be read: {error}") from error


def _restore_rotary_tables(model: PreTrainedModel, device: torch.device) -> None:
    """Compute the frequencies of rotary embeddings, which no file holds, as they first were."""
    others = [name for name, _ in model.named_buffers() if not name.startswith(_ROTARY)]
    if others:
        raise InputError(f"the model keeps tables that no file holds: {', '.join(others)}")
    rotary = model.get_submodule(_ROTARY)
    model.set_submodule(_ROTARY, type(rotary)(model.config).to(device))


def _files_of(folder: Path) -> Mapping[str, str]:
    """Which file of the folder holds each tensor."""
    names = weight_files(folder)
    if (folder / INDEX).is_file():
        return read_index(folder)
    try:
        with safe_open(folder / names[0], framework="pt", device="cpu") as tensors:
            return dict.fromkeys(tensors.keys(), names[0])
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"the weights of model folder '{folder}' are damaged: {error}") from error


def _places(
    model: nn.Module, files: Mapping[str, str], folder: Path
) -> dict[str, list[tuple[str, str, Tensor]]]:
    """Of each file, what to read: name in the file, name in the model, parameter."""
    result: dict[str, list[tuple[str, str, Tensor]]] = defaultdict(list)
    missing = []
    for names, parameter in _parameters(model):
        # A model without an output layer is saved without the prefix.
        candidates = [each for name in names for each in (name, name.removeprefix("model."))]
        stored = next((each for each in candidates if each in files), None)
        if stored is None:
            missing.append(names[0])
        else:
            result[files[stored]].append((stored, names[0], parameter))
    if missing:
        raise InputError(
            f"model folder '{folder}' lacks {len(missing)} tensors that its config.json asks for, "
            f"the first is '{missing[0]}'; the weights are incomplete or of another model"
        )
    return result


def _parameters(model: nn.Module) -> Iterator[tuple[list[str], Tensor]]:
    """All parameters that a file must hold, with all names of each."""
    names: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
    for name, parameter in model.named_parameters():
        if not is_adapter(name):
            yield names[id(parameter)], parameter


@torch.no_grad()
def _read_rows(tensors: Any, stored: str, parameter: Tensor, label: str) -> None:
    """Copy this rank's rows of a tensor."""
    view = tensors.get_slice(stored)
    if list(parameter.shape) != view.get_shape():
        raise InputError(
            f"{label} is {view.get_shape()}, but config.json asks for {list(parameter.shape)}"
        )
    if view.get_dtype() not in _FORMATS:
        raise InputError(
            f"{label} is stored as {view.get_dtype()}, expected one of {', '.join(_FORMATS)}; "
            "quantised models cannot be trained, use the original"
        )
    own, rows = local_rows(parameter)
    if len(own):
        read = view[rows.start : rows.stop]
        if not bool(read.isfinite().all()):
            raise InputError(f"{label} holds values that are not finite (NaN or infinite)")
        own.copy_(read)
