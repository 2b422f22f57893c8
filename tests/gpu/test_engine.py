"""The engine on one CUDA device: modes agree, offload works, and memory is as estimated."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from common.config import Config, Learner, Lora, Model
from common.errors import MachineError
from learner.engine.memory import estimate_memory
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import token_logprobs
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_policy
from learner.engine.sharding import full_state_dict
from learner.packs.packing import pack_segments, segment_of_examples

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOKENS = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=4096, hidden_size=512, intermediate_size=1536, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, head_dim=64, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def take_steps(folder: Path, rank: Rank, *, lora_rank: int = 0, **keys: Any) -> dict[str, Any]:
    """Two optimizer steps on the same pack; log-probabilities, weights, peak memory."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    learner = Learner(pack_tokens=TOKENS, learning_rate=1e-3, warmup_steps=1, **keys)
    config = Config(
        model=Model(path=str(folder), dtype="bfloat16", lora=Lora(rank=lora_rank)),
        learner=learner,
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4096, (TOKENS,), generator=generator).tolist()
    segments = [
        segment_of_examples(part, [0.0] + [1.0] * (len(part) - 1), name="x")
        for part in (ids[: TOKENS // 4], ids[TOKENS // 4 :])
    ]
    (pack,) = pack_segments(segments, budget=TOKENS)
    model = load_policy(config, rank)
    optimizer = PolicyOptimizer(model, learner)
    norms = []
    for _ in range(2):
        logprobs = token_logprobs(model, pack.to(rank.device))
        (-logprobs.mean()).backward()
        norms.append(optimizer.step().gradient_norm)
    estimate = estimate_memory(
        json.loads((folder / "config.json").read_text()), config, on_gpu=True
    )
    return {
        "logprobs": logprobs.detach().cpu(),
        "norms": norms,
        "weights": full_state_dict(model),
        "peak": torch.cuda.max_memory_allocated() - before,
        "estimate": sum(estimate.device.values()) - estimate.device["CUDA"],
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"activation_checkpointing": "full"},
        {"activation_checkpointing": "selective"},
        {"cpu_offload": True},
        {"compile": True},
        {"compile": True, "activation_checkpointing": "selective", "cpu_offload": True},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_every_mode_learns_the_same(folder: Path, keys: dict[str, Any]) -> None:
    with training_processes() as rank:
        expected = take_steps(folder, rank)
        found = take_steps(folder, rank, **keys)

    assert found["norms"] == pytest.approx(expected["norms"], rel=2e-2)
    torch.testing.assert_close(found["logprobs"], expected["logprobs"], rtol=2e-2, atol=5e-2)


@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("offload", [False, True])
def test_peak_memory_is_about_what_was_estimated(folder: Path, mode: str, offload: bool) -> None:
    with training_processes() as rank:
        found = take_steps(folder, rank, activation_checkpointing=mode, cpu_offload=offload)

    assert 0.6 < found["estimate"] / found["peak"] < 2.5, found


def test_adapters_train_on_frozen_half_precision_weights(folder: Path) -> None:
    with training_processes() as rank:
        found = take_steps(folder, rank, lora_rank=8, activation_checkpointing="full")

    assert found["norms"][0] > 0
    assert {tensor.dtype for tensor in found["weights"].values()} == {torch.bfloat16}


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with (
        pytest.raises(MachineError, match=r"on GPU 4095, but torch finds"),
        training_processes(first_gpu=4095),
    ):
        pass
