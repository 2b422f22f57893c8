"""Writes adapters as a folder in the PEFT layout, to be read and computed with by PEFT itself."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from common.config import Lora


def write_adapter_folder(
    state: Mapping[str, Tensor], folder: Path, *, lora: Lora, base: Path
) -> None:
    """``state`` holds gathered adapters; ``base`` is the model that they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": sorted(lora.targets),
        "lora_dropout": 0.0,
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(description), encoding="utf-8")
