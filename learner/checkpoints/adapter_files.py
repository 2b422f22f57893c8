"""Adapters as folders in the PEFT layout, which PEFT, vLLM and others read.

``adapter_model.safetensors`` holds A and B of every adapted layer by the layer's name behind
``base_model.model.``; ``adapter_config.json`` says how to apply them, and to which model.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.config import Lora
from common.errors import InputError
from learner.engine.lora import adapter_state
from learner.engine.model_shape import ALL_LINEAR
from learner.engine.shards import local_rows

_PREFIX = "base_model.model."
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"


def write_adapter_folder(
    state: Mapping[str, Tensor], folder: Path, *, lora: Lora, base: str | Path
) -> None:
    """Write gathered adapters.

    Args:
        state: from ``learner.weights.contents.full_adapter_state`` on rank 0.
        folder: made if needed.
        lora: as given to ``learner.engine.lora.add_adapters``.
        base: folder or name of the model that the adapters belong to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {_PREFIX + name: tensor.contiguous() for name, tensor in state.items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        "target_modules": ALL_LINEAR if ALL_LINEAR in lora.targets else sorted(lora.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
    }
    text = json.dumps(description, indent=2, sort_keys=True) + "\n"
    (folder / _CONFIG).write_text(text, encoding="utf-8")


def read_adapter_folder(model: nn.Module, folder: Path, *, lora: Lora) -> None:
    """Fill a model's adapters; each rank reads its own rows, so every rank must call it.

    Args:
        model: with adapters, sharded or not.
        folder: in the PEFT layout.
        lora: the adapters of the model.

    Raises:
        InputError: files are missing or damaged, or hold adapters of another kind or model.
    """
    _check_description(_read_description(folder), folder, lora)
    wanted = adapter_state(model)
    try:
        with safe_open(folder / _WEIGHTS, framework="pt", device="cpu") as tensors:
            _check_names({_PREFIX + name for name in wanted}, set(tensors.keys()), folder)
            for name, parameter in wanted.items():
                _read(tensors, name, parameter, folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"adapter '{folder / _WEIGHTS}' cannot be read: {error}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"adapter '{folder / _CONFIG}' cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"adapter '{folder / _CONFIG}' must hold a JSON object")
    return found


def _check_description(found: dict[str, Any], folder: Path, lora: Lora) -> None:
    for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern"):
        if found.get(key):
            raise InputError(f"adapter '{folder}' uses {key}, which is not supported")
    expected = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": lora.alpha}
    for key, value in expected.items():
        if found.get(key) != value:
            raise InputError(
                f"adapter '{folder}' has {key} {found.get(key)!r}, but model.lora says {value!r}"
            )


def _check_names(expected: set[str], found: set[str], folder: Path) -> None:
    different = sorted(expected ^ found)
    if different:
        raise InputError(
            f"adapter '{folder}' does not fit the model: {len(different)} tensors are in one of "
            f"them only, the first is '{different[0]}'; compare its target_modules with "
            "model.lora.targets"
        )


@torch.no_grad()
def _read(tensors: Any, name: str, parameter: Tensor, folder: Path) -> None:
    view = tensors.get_slice(_PREFIX + name)
    if view.get_shape() != list(parameter.shape):
        raise InputError(
            f"adapter '{folder}': '{name}' is {view.get_shape()}, but the model's is "
            f"{list(parameter.shape)}"
        )
    own, rows = local_rows(parameter)
    if len(own):
        own.copy_(view[rows.start : rows.stop])
