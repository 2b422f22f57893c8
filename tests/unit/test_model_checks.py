"""A model folder that learner or policy server would refuse is refused before anything starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.config import Lora
from common.errors import ConfigError, InputError, LZeroError
from common.model_config import FAMILIES, longest_context
from launch.models.model_checks import check_model
from learner.engine.loading import build_empty
from learner.engine.lora import LoraLinear, add_adapters
from learner.engine.mesh import training_processes
from learner.engine.model import POLICIES, load_model
from learner.engine.model_shape import shape_of
from learner.engine.policy import load_sharded
from learner.engine.sharding import tied_names
from tests.tiny_policy import make_model
from tests.tiny_text_model import make_text_model

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_model(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def index(folder: Path, names: dict[str, str]) -> None:
    text = json.dumps({"metadata": {}, "weight_map": names})
    (folder / "model.safetensors.index.json").write_text(text)


def fault(folder: Path, **asked: Any) -> str:
    with pytest.raises(LZeroError) as error:
        check_model(folder, **asked)
    return str(error.value)


def test_a_sound_folder_passes_also_in_several_files(folder: Path) -> None:
    check_model(folder, max_context=512)
    weights = load_file(folder / "model.safetensors")
    parts = [dict(list(weights.items())[:9]), dict(list(weights.items())[9:])]
    (folder / "model.safetensors").unlink()
    for number, part in enumerate(parts):
        save_file(part, folder / f"model-{number}.safetensors")
    names = {name: f"model-{n}.safetensors" for n, part in enumerate(parts) for name in part}
    index(folder, names)

    check_model(folder, max_context=512)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_tensors_of_a_model_follow_from_its_config(
    tmp_path: Path, family: str, tied: bool
) -> None:
    make_model(tmp_path, family, tied=tied, key_heads=1)
    model = build_empty(tmp_path)
    expected = {n: tuple(t.shape) for n, t in model.state_dict().items() if n not in
                tied_names(model)}  # fmt: skip

    assert shape_of(json.loads((tmp_path / "config.json").read_text())).tensors() == expected
    assert tuple(POLICIES) == FAMILIES


STALE = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def test_a_stale_index_beside_the_weights_names_the_shard(folder: Path) -> None:
    """vLLM refuses it; the learner read the index as well."""
    index(folder, {"model.norm.weight": STALE[0], "model.embed_tokens.weight": STALE[1]})

    said = fault(folder)

    assert f"names 2 files that are not in the folder, the first is '{STALE[0]}'" in said
    assert "or delete the index if model.safetensors is whole" in said
    with training_processes() as rank, pytest.raises(InputError, match=STALE[0]):
        load_sharded(folder, rank, compute_dtype=torch.float32)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/dev/zero", "", ".", "..", 7, None, "a/b"]
)
def test_an_index_names_files_of_its_own_folder_only(folder: Path, name: Any) -> None:
    index(folder, {"model.norm.weight": name})

    assert "which is not the name of a file in the folder" in fault(folder)


def test_an_index_of_another_model_is_found(folder: Path) -> None:
    index(folder, {"model.stranger": "model.safetensors"})

    assert "says that model.safetensors holds 'model.stranger', which it does not" in fault(folder)


@pytest.mark.parametrize("extra", ["adapter_model.safetensors", "consolidated.safetensors"])
def test_weights_that_only_vllm_would_read_are_refused(folder: Path, extra: str) -> None:
    shutil.copy(folder / "model.safetensors", folder / extra)

    assert f"holds {extra} beside model.safetensors, and vLLM would load it" in fault(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop(NAME), f"{NAME} is missing"),
        (lambda w: w.update({NAME: torch.ones(3, 4)}), f"{NAME} is [3, 4], the config asks for"),
        (lambda w: w.update({NAME: torch.ones(48, 32, dtype=torch.int8)}), "stored as I8"),
        (lambda w: w.update({"model.stranger": torch.ones(1)}), "model.stranger is not of this"),
        (
            lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"] + 1}),
            "config says tied, but lm_head.weight differs from model.embed_tokens.weight",
        ),
    ],
)
def test_weights_that_do_not_fit_the_config_are_named(
    folder: Path, change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    edit(folder, change)

    assert said in fault(folder)


def test_copies_of_tied_weights_and_tables_that_nobody_reads_do_no_harm(folder: Path) -> None:
    def add(weights: dict[str, Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)

    edit(folder, add)

    check_model(folder, max_context=512)
    load_model(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mistral"}, "is of family 'mistral'; supported are qwen2, qwen3, llama"),
        ({"model_type": ["qwen3"]}, "is of family ['qwen3']"),
        ({"quantization_config": {"quant_method": "awq"}}, "the model is quantised"),
        ({"hidden_size": None}, "lacks or misstates 'hidden_size'"),
        ({"vocab_size": "264"}, "lacks or misstates 'vocab_size'"),
        ({"num_hidden_layers": 10**30}, "lacks or misstates 'num_hidden_layers'"),
        ({"num_attention_heads": True}, "lacks or misstates 'num_attention_heads'"),
        ({"num_key_value_heads": 3}, "num_key_value_heads is 3, which does not divide"),
        ({"vocab_size": 100}, "the tokenizer belongs to another model"),
        ({"use_sliding_window": True, "sliding_window": 64}, "attend to the last 64 tokens only"),
        ({"rope_scaling": "yarn", "rope_parameters": None}, "rope_parameters must be an object"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": "4"}},
            "'factor' of its rope scaling is '4'",
        ),
    ],
)
def test_a_config_that_does_not_work_is_named_with_its_key(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    configure(folder, **changes)

    assert said in fault(folder, max_context=512)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8"),
        (b"[" * 100_000, "is not usable JSON"),
        (b"[]", "must hold a JSON object, got list"),
        (b'{"a": }', r"is not JSON: Expecting value (line 1, column 7)"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not usable JSON"),
        (b"", "is not JSON"),
    ],
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_a_file_that_is_no_json_object_is_named(
    folder: Path, file: str, data: bytes, said: str
) -> None:
    (folder / file).write_bytes(data)

    assert f"/{file}' {said}" in fault(folder)


@pytest.mark.parametrize("text", ["{}", "", "[", '{"model": {"type": "none"}}'])
def test_a_tokenizer_that_is_none_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)

    assert "/tokenizer.json' is not a usable tokenizer" in fault(folder)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({}, None),
        ({"max_position_embeddings": 512}, 512),
        ({"max_position_embeddings": 256, "rope_scaling": YARN}, 1024),
        ({"max_position_embeddings": 256, "rope_parameters": YARN}, 1024),
        ({"max_position_embeddings": 4096, "rope_scaling": YARN}, 4096),
        ({"max_position_embeddings": 256, "rope_scaling": {"type": "linear", "factor": 2}}, 512),
        ({"max_position_embeddings": 256, "rope_scaling": {"type": "dynamic", "factor": 2}}, 256),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3"}}, 131072),
        ({"max_position_embeddings": 256, "rope_scaling": None}, 256),
    ],
)
def test_the_longest_context_is_that_of_the_scaling_of_positions(
    config: dict[str, Any], longest: int | None
) -> None:
    assert longest_context(config, Path("config.json")) == longest


def test_a_context_within_yarn_is_taken_and_beyond_it_refused(folder: Path) -> None:
    theta = json.loads((folder / "config.json").read_text())["rope_parameters"]["rope_theta"]
    yarn = {**YARN, "rope_theta": theta}
    configure(folder, max_position_embeddings=256, rope_parameters=yarn)

    check_model(folder, max_context=1024)

    assert "made for at most 1024 tokens" in fault(folder, max_context=1025)


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "all-linear")])
def test_all_linear_adapts_every_linear_layer(folder: Path, targets: tuple[str, ...]) -> None:
    lora = Lora(rank=2, targets=targets)

    check_model(folder, lora=lora)
    model = add_adapters(load_model(folder), lora)

    assert sum(isinstance(module, LoraLinear) for module in model.modules()) == 2 * 7
    shape = shape_of(json.loads((folder / "config.json").read_text()))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.adapter_parameters(lora) == trained


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        (Lora(rank=2, targets=("w_qkv",)), "names w_qkv, but the model has no such linear layer"),
        (Lora(rank=2, targets=()), "model.lora.targets is empty"),
        (Lora(rank=33), "model.lora.rank is 33, but 'q_proj' is [32, 32]"),
    ],
)
def test_adapters_that_the_model_cannot_have_are_refused(
    folder: Path, lora: Lora, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        check_model(folder, lora=lora)
    assert said in str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named_by_the_learner(folder: Path, value: float) -> None:
    edit(folder, lambda weights: weights[NAME].view(-1)[5].fill_(value))

    with training_processes() as rank, pytest.raises(InputError) as error:
        load_sharded(folder, rank, compute_dtype=torch.float32)
    assert f"tensor '{NAME}' holds values that are not finite" in str(error.value)
