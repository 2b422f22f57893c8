"""Writes plain Hugging Face folders, which any tool can load."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

COPIED = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)
"""What a model folder holds beside its weights, where it is there."""


def write_model_folder(
    state: dict[str, Tensor], source: Path, destination: Path, dtype: torch.dtype
) -> None:
    """Write weights beside config and tokenizer of the model they come from.

    Args:
        state: tensors by Hugging Face name, as from ``learner.sharding.full_state_dict``.
        source: folder the model was loaded from.
        destination: folder to write; made if needed, other files in it stay.
        dtype: type of the saved weights.
    """
    destination.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in state.items()}
    save_file(weights, destination / "model.safetensors", metadata={"format": "pt"})
    if source.resolve() != destination.resolve():
        for name in COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, destination / name)
    _record_dtype(destination / "config.json", dtype)


def _record_dtype(path: Path, dtype: torch.dtype) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
