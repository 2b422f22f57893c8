"""A model filled row by row is the model that transformers loads, bit for bit."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from common.config import Config, Learner, Model, PolicyServer
from common.errors import ConfigError, InputError, MachineError
from learner.engine.loading import build_empty
from learner.engine.memory import GIB, FreeMemory
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model
from learner.engine.policy import check_fit, load_policy, load_sharded
from learner.engine.sharding import check_compute_dtype, full_state_dict, shard
from learner.engine.shards import local_rows
from tests.tiny_policy import make_model

ROOM = FreeMemory(device=None, host=100 * GIB)


def load_here(folder: Path) -> dict[str, Tensor]:
    with training_processes() as rank:
        model = load_sharded(folder, rank, compute_dtype=torch.float32)
        tables = {f"buffer {name}": table for name, table in model.named_buffers()}
        return full_state_dict(model) | tables


def rewrite(folder: Path, state: dict[str, Tensor]) -> None:
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def assert_loads_like_transformers(folder: Path) -> None:
    expected = load_model(folder)
    state = expected.state_dict()
    state |= {f"buffer {name}": table for name, table in expected.named_buffers()}
    found = load_here(folder)
    assert set(state) - set(found) <= {"lm_head.weight"}
    for name, tensor in found.items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_tensor_and_rotary_table_is_that_of_transformers(
    tmp_path: Path, family: str, tied: bool
) -> None:
    make_model(tmp_path, family, tied=tied)

    assert_loads_like_transformers(tmp_path)


def test_scaled_rotary_tables_are_those_of_transformers(tmp_path: Path) -> None:
    scaling = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, rope_parameters=scaling,
        bos_token_id=None, eos_token_id=None, max_position_embeddings=1024,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)

    assert_loads_like_transformers(tmp_path)


def test_weights_in_several_files_and_in_bfloat16_are_found(tmp_path: Path) -> None:
    model = make_model(tmp_path / "one", "qwen2", tied=False).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "many", max_shard_size="8KB")

    files = list((tmp_path / "many").glob("*.safetensors"))

    assert len(files) > 3
    assert_loads_like_transformers(tmp_path / "many")


def test_a_tied_model_stays_tied_and_its_parameters_are_counted_once(tmp_path: Path) -> None:
    original = make_model(tmp_path)
    with training_processes() as rank:
        model = load_sharded(tmp_path, rank, compute_dtype=torch.float32)

        assert model.lm_head.weight is model.model.embed_tokens.weight
        assert len(list(model.parameters())) == len(list(original.parameters()))


def test_a_model_of_32_billion_parameters_is_sharded_before_it_takes_memory(
    tmp_path: Path,
) -> None:
    sizes = {
        "model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120,
        "intermediate_size": 27648, "num_hidden_layers": 64, "num_attention_heads": 40,
        "num_key_value_heads": 8, "tie_word_embeddings": False,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(sizes))

    with (
        training_processes() as rank,
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace,
    ):
        model = shard(build_empty(tmp_path), rank, compute_dtype=torch.bfloat16)

    assert sum(parameter.numel() for parameter in model.parameters()) == 32_763_876_352
    events = trace.profiler.kineto_results.events()
    assert sum(max(0, e.nbytes()) for e in events if e.name() == "[memory]") < 1 << 20


def memory_while_loading(rank: Rank, folder: str) -> dict[str, int]:
    """Largest allocation and most bytes at once, without the mapping of the file itself."""
    file_bytes = (Path(folder) / "model.safetensors").stat().st_size
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        model = load_sharded(folder, rank, compute_dtype=torch.float32)
    events = trace.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]
    taken = [size for size in sizes if abs(size) != file_bytes]
    held = [sum(taken[: end + 1]) for end in range(len(taken))]
    return {
        "largest": max(taken),
        "most": max(held),
        "shards": sum(4 * local_rows(p)[0].numel() for p in model.parameters()),
        "largest shard": max(4 * local_rows(p)[0].numel() for p in model.parameters()),
    }


@pytest.mark.distributed
def test_no_rank_holds_more_than_its_shards_and_its_part_of_one_tensor(
    run_ranks: Any, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", tied=False, width=128)
    whole = sum(4 * parameter.numel() for parameter in model.parameters())

    ranks = run_ranks(memory_while_loading, 2, str(tmp_path / "model"))

    for found in ranks:
        assert found["shards"] < 0.6 * whole
        assert found["largest"] <= 1.1 * found["largest shard"]
        assert found["most"] < 1.3 * found["shards"] + found["largest shard"]
    assert sum(found["shards"] for found in ranks) == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.norm.weight"), r"lacks 1 tensors .* 'model\.norm\.weight'"),
        (
            lambda s: s.update({"model.norm.weight": torch.ones(7)}),
            r"'model\.norm\.weight' is \[7\], but config\.json asks for \[32\]",
        ),
        (
            lambda s: s.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            r"is stored as I8, expected one of .*quantised models cannot be trained",
        ),
    ],
    ids=["missing", "shape", "quantised"],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Any, message: str) -> None:
    make_model(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    change(state)
    rewrite(tmp_path, state)

    with pytest.raises(InputError, match=message):
        load_here(tmp_path)


def test_folders_without_readable_weights_are_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(InputError, match="are damaged"):
        load_here(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r"neither model\.safetensors nor .*index\.json"):
        load_here(tmp_path)


def test_names_without_the_models_prefix_are_understood(tmp_path: Path) -> None:
    make_model(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    state = load_file(tmp_path / "a" / "model.safetensors")
    rewrite(tmp_path / "b", {name.removeprefix("model."): t for name, t in state.items()})

    found, expected = load_here(tmp_path / "b"), load_here(tmp_path / "a")

    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model = Model(path=str(tmp_path))

    with pytest.raises(ConfigError, match=r"learner\.ranks is 6, .* \(2\) x .* \(2\) = 4"):
        check_fit(
            Config(model=model, learner=Learner(ranks=6, replicas=2, context_parallel=2)), ROOM
        )
    with pytest.raises(ConfigError, match=r"tensor_parallel is 3, .* 4 attention heads and 2 key"):
        check_fit(Config(model=model, policy_server=PolicyServer(tensor_parallel=3)), ROOM)
    with pytest.raises(MachineError, match=r"about .* GiB of CPU memory .* what helps: "):
        check_fit(Config(model=model), FreeMemory(device=None, host=1 << 16))
    description = json.loads((tmp_path / "config.json").read_text())
    description.pop("hidden_size")
    (tmp_path / "config.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"config\.json' lacks or misstates 'hidden_size'"):
        check_fit(Config(model=model), ROOM)


def test_a_gpu_without_bfloat16_is_named_with_what_to_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")

    with pytest.raises(MachineError, match=r'Tesla T4 does not .*set model\.dtype = "float32"'):
        check_compute_dtype(torch.bfloat16, torch.device("cuda", 0))
    check_compute_dtype(torch.float32, torch.device("cuda", 0))
    check_compute_dtype(torch.bfloat16, torch.device("cpu"))


def test_an_unsupported_architecture_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))

    with (
        pytest.raises(InputError, match=r"of family 'mamba'; supported are qwen2, qwen3, llama"),
        training_processes() as rank,
    ):
        load_policy(Config(model=Model(path=str(tmp_path))), rank)
