"""A configuration tells parameters and operations as torch counts them on the model itself."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from benchmarks.learner.flops import (
    count_parameters,
    flops_per_token,
    flops_per_token_of_prime_rl,
    forward_flops,
    peak_flops,
    training_flops,
    utilisation,
)
from benchmarks.learner.models import QWEN3_0_6B
from learner.packs.balance import cost_of_model
from tests.tiny_policy import FAMILIES


def make(family: str, **changes: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    config_class, model_class = FAMILIES[family]
    sizes = {
        "vocab_size": 70,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    config = config_class(**{**sizes, **changes})
    config._attn_implementation = "eager"
    return model_class(config), config.to_dict()


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen2", {}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3", {"head_dim": 8, "attention_bias": True}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    ],
)
def test_parts_add_up_to_the_parameters_of_the_model(family: str, changes: dict[str, Any]) -> None:
    model, config = make(family, **changes)

    found = count_parameters(config)

    def held(*words: str) -> int:
        named = model.named_parameters()
        return sum(p.numel() for name, p in named if any(word in name for word in words))

    assert found.total == sum(p.numel() for p in model.parameters())
    assert found.embedding == held("embed_tokens")
    assert found.attention == held("self_attn")
    assert found.mlp == held(".mlp.")
    assert found.norms == held("layernorm", "model.norm")
    assert found.output == held("lm_head")


def test_a_model_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"qwen2, qwen3, llama, got 'gpt2'"):
        count_parameters({**QWEN3_0_6B, "model_type": "gpt2"})


@pytest.mark.parametrize("family", list(FAMILIES))
def test_torch_counts_the_same_operations_in_both_passes(family: str) -> None:
    """Stock attention computes the scores above the diagonal and masks them."""
    model, config = make(family, head_dim=16)
    tokens = torch.randint(0, 70, (3, 19))

    with FlopCounterMode(display=False) as forward:
        logits = model(input_ids=tokens).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()

    expected = forward_flops(config, [19, 19, 19], 57, causal=False)
    assert forward.get_total_flops() == expected
    assert backward.get_total_flops() == 2 * expected


def test_causal_attention_is_half_of_full_attention_whatever_else_there_is() -> None:
    lengths, targets = [5, 300, 41], 17
    nothing = {**QWEN3_0_6B, "num_attention_heads": 0}

    without = forward_flops(nothing, lengths, targets)
    causal = forward_flops(QWEN3_0_6B, lengths, targets)
    full = forward_flops(QWEN3_0_6B, lengths, targets, causal=False)

    projections = 2 * 28 * 2 * 1024 * 16 * 128 * sum(lengths)
    assert full - without - projections == 2 * (causal - without - projections)


def test_a_training_step_is_three_forward_passes_and_segments_do_not_see_each_other() -> None:
    split = training_flops(QWEN3_0_6B, [1000, 1000], 10)
    whole = training_flops(QWEN3_0_6B, [2000], 10)

    assert split == pytest.approx(3 * forward_flops(QWEN3_0_6B, [1000, 1000], 10))
    assert whole - split == pytest.approx(3 * 28 * 2 * 2048 * (2000**2 - 2 * 1000**2))
    assert flops_per_token(QWEN3_0_6B, 2000) == pytest.approx(
        training_flops(QWEN3_0_6B, [2000], 2000) / 2000
    )


@pytest.mark.parametrize(
    ("length", "tokens_per_s", "published"), [(16_384, 11_900, 0.111), (65_536, 10_150, 0.268)]
)
def test_the_formula_of_prime_rl_reproduces_its_published_utilisation(
    length: int, tokens_per_s: float, published: float
) -> None:
    flops = flops_per_token_of_prime_rl(QWEN3_0_6B, length) * tokens_per_s

    assert utilisation(flops, 1.0, peak_flops("NVIDIA H100 80GB HBM3")) == pytest.approx(
        published, abs=5e-4
    )


def test_the_formula_of_prime_rl_equals_full_attention_where_heads_fill_the_hidden_size() -> None:
    square = {**QWEN3_0_6B, "head_dim": 64}

    assert flops_per_token_of_prime_rl(square, 4096) == pytest.approx(
        3 * forward_flops(square, [4096], 4096, causal=False) / 4096
    )


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_peaks_are_known_by_the_names_of_devices(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_utilisation_is_shared_by_devices_and_unknown_without_a_peak() -> None:
    assert utilisation(8e12, 2.0, 1e12, devices=8) == 0.5
    assert utilisation(8e12, 2.0, None) is None


def test_weights_of_projections_are_those_of_the_cost_model() -> None:
    parameters, cost = count_parameters(QWEN3_0_6B), cost_of_model(QWEN3_0_6B)

    head_norms = 28 * 2 * 128
    assert cost.per_token == 2 * (parameters.attention - head_norms + parameters.mlp)
    assert cost.per_target == 2 * parameters.embedding
