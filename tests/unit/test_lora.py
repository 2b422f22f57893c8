"""Adapters do what their formula says, as PEFT does, and leave the model beneath them alone."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from common.config import Learner, Lora
from common.errors import ConfigError
from learner.checkpoints.model_folder import write_model_folder
from learner.engine.lora import (
    LoraLinear,
    adapted_layers,
    adapter_state,
    add_adapters,
    reset_adapters,
)
from learner.engine.mesh import training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_sharded
from learner.engine.sharding import full_state_dict
from learner.weights.contents import full_adapter_state
from tests.adapter_folder import write_adapter_folder
from tests.tiny_policy import make_model

LORA = Lora(rank=3, alpha=6.0, targets=("q_proj", "v_proj", "down_proj"))
IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35]])


def make_adapted(folder: Path, family: str = "qwen2") -> nn.Module:
    """A model with adapters that change what it says."""
    make_model(folder, family)
    model = add_adapters(load_model(folder), LORA)
    reset_adapters(model, seed=1)
    torch.manual_seed(2)
    for _, layer in adapted_layers(model):
        nn.init.normal_(layer.lora_B.weight, std=0.2)
    return model


def stock_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits


def own_logits(model: nn.Module) -> torch.Tensor:
    """By transformers' own attention, which needs no layout."""
    model.set_attn_implementation("eager")  # type: ignore[operator]
    with torch.no_grad():
        return model(IDS).logits


def test_adapted_layer_adds_the_scaled_product_of_both_factors() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(5, 4)
    layer = LoraLinear(plain, rank=2, scale=3.0)
    inputs = torch.randn(6, 5)
    w, a, b = (part.weight.tolist() for part in (plain, layer.lora_A, layer.lora_B))

    outputs = layer(inputs).tolist()

    for row in range(6):
        for out in range(4):
            expected = plain.bias.tolist()[out]
            for i in range(5):
                adapted = sum(b[out][r] * a[r][i] for r in range(2))
                expected += (w[out][i] + 3.0 * adapted) * inputs.tolist()[row][i]
            assert outputs[row][out] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_model_begins_as_it_was_and_trains_its_adapters_only(tmp_path: Path) -> None:
    make_model(tmp_path, "qwen2")
    model = add_adapters(load_model(tmp_path), LORA)
    reset_adapters(model, seed=1)

    trainable = {name for name, p in model.named_parameters() if p.requires_grad}

    assert trainable == set(adapter_state(model))
    assert len(trainable) == 2 * 3 * 2
    torch.testing.assert_close(own_logits(model), stock_logits(tmp_path))


def test_optimizer_moves_adapters_and_nothing_else(tmp_path: Path) -> None:
    make_model(tmp_path)
    with training_processes() as rank:
        model = load_sharded(tmp_path, rank, compute_dtype=torch.float32, lora=LORA)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer = PolicyOptimizer(model, Learner(learning_rate=1e-2, weight_decay=0.1))
        for name, parameter in adapter_state(model).items():
            parameter.grad = torch.ones_like(parameter) if "lora_B" in name else None

        optimizer.step()

        held = [p for group in optimizer.adamw.param_groups for p in group["params"]]
        assert len(held) == len(adapter_state(model))
        for name, parameter in model.named_parameters():
            moved = bool((parameter != before[name]).any())
            assert moved == name.endswith("lora_B.weight"), name


def test_merged_model_is_a_plain_folder_with_the_same_logits(tmp_path: Path) -> None:
    model = make_adapted(tmp_path / "base")

    write_model_folder(
        full_state_dict(model), tmp_path / "base", tmp_path / "merged", torch.float32
    )

    assert not any("lora" in name for name in full_state_dict(model))
    merged = stock_logits(tmp_path / "merged")
    torch.testing.assert_close(merged, own_logits(model), rtol=1e-4, atol=1e-4)
    assert (merged - stock_logits(tmp_path / "base")).abs().max() > 0.1


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_peft_reads_the_folder_and_computes_the_same(tmp_path: Path, family: str) -> None:
    model = make_adapted(tmp_path / "base", family)
    write_adapter_folder(
        full_adapter_state(model), tmp_path / "adapter", lora=LORA, base=tmp_path / "base"
    )

    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")

    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, own_logits(model), rtol=1e-4, atol=1e-4)


def test_targets_that_name_no_layer_are_named_in_the_error(tmp_path: Path) -> None:
    make_model(tmp_path)

    with pytest.raises(ConfigError, match=r"names w_qkv, but .*; it has down_proj, gate_proj, k_"):
        add_adapters(load_model(tmp_path), Lora(rank=2, targets=("q_proj", "w_qkv")))


def test_a_rank_larger_than_the_layer_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)

    with pytest.raises(ConfigError, match=r"rank is 40, but '.*q_proj' is \[32, 32\]"):
        add_adapters(load_model(tmp_path), Lora(rank=40))
