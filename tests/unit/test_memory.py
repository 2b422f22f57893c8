"""What a run needs is known before it starts, and the error says what to change."""

import gc
import json
import re
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from common.config import Config, Learner, Lora, Model
from common.errors import MachineError
from learner.engine.memory import (
    GIB,
    FreeMemory,
    check_memory,
    estimate_memory,
    free_memory,
)
from learner.engine.mesh import training_processes
from learner.engine.model import token_logprobs
from learner.engine.model_shape import shape_of
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_policy
from learner.packs.packing import pack_segments, segment_of_examples
from tests.tiny_policy import make_model

TOKENS = 512
LARGE: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 152064,
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "num_hidden_layers": 64,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
"""Qwen2.5-32B."""


def description_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def memory_changes(function: Callable[[], object]) -> list[int]:
    """Bytes that torch's allocator handed out (positive) and took back while the call ran.

    Garbage of what ran before is collected first: it would be taken back at any time.
    """
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            kept = function()
    finally:
        gc.enable()
    del kept
    events = trace.profiler.kineto_results.events()
    return [event.nbytes() for event in events if event.name() == "[memory]"]


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_parameters_are_counted_from_config_alone(tmp_path: Path, family: str, tied: bool) -> None:
    model = make_model(tmp_path, family, tied=tied, key_heads=1)

    shape = shape_of(description_of(tmp_path))

    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_a_known_model_has_its_published_size() -> None:
    shape = shape_of(LARGE)

    assert shape.parameters == 32_763_876_352
    assert shape.parameters - 2 * 152064 * 5120 == pytest.approx(31.0e9, rel=0.01)


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_real_steps_take_about_what_was_estimated(tmp_path: Path, mode: Any, dtype: Any) -> None:
    make_model(tmp_path, "qwen3", width=96)
    learner = Learner(pack_tokens=TOKENS, activation_checkpointing=mode)
    config = Config(model=Model(path=str(tmp_path), dtype=dtype), learner=learner)
    segment = segment_of_examples([3] * TOKENS, [0.0] + [1.0] * (TOKENS - 1), name="x")
    (pack,) = pack_segments([segment], budget=TOKENS)

    def take_two_steps() -> None:
        model = load_policy(config, rank)
        optimizer = PolicyOptimizer(model, learner)
        for _ in range(2):
            token_logprobs(model, pack).sum().backward()
            optimizer.step()

    with training_processes() as rank:
        take_two_steps()
        measured = max(accumulate(memory_changes(take_two_steps)))

    estimate = estimate_memory(description_of(tmp_path), config, on_gpu=False)
    assert 0.95 < sum(estimate.device.values()) / measured < 1.5, f"measured {measured}, {estimate}"


def test_checkpointing_keeps_less_between_forward_and_backward_pass(tmp_path: Path) -> None:
    make_model(tmp_path)
    segment = segment_of_examples([3] * TOKENS, [0.0] + [1.0] * (TOKENS - 1), name="x")
    (pack,) = pack_segments([segment], budget=TOKENS)
    kept = {}

    with training_processes() as rank:
        for mode in ("none", "selective", "full"):
            learner = Learner(pack_tokens=TOKENS, activation_checkpointing=mode)
            model = load_policy(Config(model=Model(path=str(tmp_path)), learner=learner), rank)
            token_logprobs(model, pack).sum().backward()
            kept[mode] = sum(memory_changes(partial(token_logprobs, model, pack)))

    assert kept["full"] < kept["selective"] < kept["none"] / 3
    # The result of attention in both layers, 32 numbers a token, and its normaliser of 4 heads.
    assert kept["selective"] - kept["full"] == pytest.approx(2 * TOKENS * 4 * (32 + 4), rel=0.05)


def test_a_large_model_on_few_gpus_is_refused_with_what_helps() -> None:
    config = Config(
        model=Model(dtype="bfloat16", max_context=16384),
        learner=Learner(ranks=8, pack_tokens=16384),
    )
    free = FreeMemory(device=79 * GIB, host=1000 * GIB)

    with pytest.raises(MachineError) as caught:
        check_memory(LARGE, config, free)

    text = str(caught.value)
    weights, lacking = (
        float(re.search(pattern, text)[1])  # type: ignore[index]
        for pattern in (r"weights ([\d.]+)", r"([\d.]+) GiB too little")
    )
    assert weights == pytest.approx(4 * 32_763_876_352 / 8 / GIB, abs=0.01)
    assert "GPU memory" in text
    assert "79.00 GiB are free" in text
    assert lacking > 0
    for key in ("activation_checkpointing", "cpu_offload", "ranks = 16", "model.lora.rank = 16"):
        assert key in text


def test_the_same_model_fits_with_the_keys_that_the_error_names() -> None:
    free = FreeMemory(device=79 * GIB, host=1000 * GIB)
    learner = Learner(ranks=8, pack_tokens=16384, activation_checkpointing="full", cpu_offload=True)
    adapters = Learner(ranks=8, pack_tokens=16384, activation_checkpointing="full")

    check_memory(LARGE, Config(model=Model(dtype="bfloat16"), learner=learner), free)
    check_memory(
        LARGE, Config(model=Model(dtype="bfloat16", lora=Lora(rank=16)), learner=adapters), free
    )


def test_offload_is_refused_where_the_machine_has_no_memory_for_it() -> None:
    config = Config(
        model=Model(dtype="bfloat16"),
        learner=Learner(ranks=8, cpu_offload=True, activation_checkpointing="full"),
    )

    with pytest.raises(MachineError, match=r"of CPU memory \(weights .* optimizer 30\.51"):
        check_memory(LARGE, config, FreeMemory(device=79 * GIB, host=8 * GIB))


def test_free_memory_of_this_machine_is_shared_by_its_ranks() -> None:
    alone = free_memory(torch.device("cpu"), ranks_here=1)
    shared = free_memory(torch.device("cpu"), ranks_here=4)

    assert alone.device is None
    assert 0 < shared.host < alone.host < 2**50
