"""Whole runs through ``lzero train`` with adapters on two ranks, arranged in both ways."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.integration.test_end_to_end import lzero_train

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]

SETTINGS = (
    "model.lora.rank=4",
    "learner.ranks=2",
    "learner.activation_checkpointing=selective",
    "learner.cpu_offload=true",
    "learner.learning_rate=0.001",
)


@pytest.mark.parametrize("key", ["learner.replicas", "learner.context_parallel"])
def test_adapters_are_trained_and_servers_sample_with_them(tmp_path: Path, key: str) -> None:
    words = [word for setting in (*SETTINGS, f"{key}=2") for word in ("--set", setting)]
    with lzero_train(tmp_path, *words) as command:
        printed = command.finish()

    assert command.process.returncode == 0, printed
    result = json.loads((command.run / "learner.json").read_text())
    assert result["steps"] == 4
    assert result["logprob_mismatch"]["tokens"] > 0
    assert result["logprob_mismatch"]["mean_abs"] < 1e-3
    exported = command.run / "checkpoints" / "step-000004" / "hf" / "model.safetensors"
    with safe_open(exported, framework="pt") as tensors:
        assert not any("lora" in name for name in tensors.keys())  # noqa: SIM118 - no mapping
