"""A written model folder is what the usual tools would have written, bit for bit."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from common.errors import InputError
from learner.checkpoints.model_files import Weight, write_model_files
from learner.checkpoints.model_folder import write_model_folder
from learner.checkpoints.number_formats import convert
from tests.tiny_policy import make_model

SPECIAL = [0.0, -0.0, np.inf, -np.inf, 65504.0, 65520.0, 3.4e38, 1e-45, 6e-8, 2.98e-8, 1 / 3]


def floats() -> np.ndarray:
    """Every sign and exponent with a spread of fractions, borders of rounding among them."""
    spread = np.arange(0, 1 << 32, 65_521, dtype=np.uint64).astype(np.uint32)
    halfway = np.arange(1 << 16, dtype=np.uint32) << 16 | 0x8000
    special = np.array(SPECIAL, dtype=np.float32).view(np.uint32)
    return np.concatenate([spread, halfway, halfway + 1, halfway - 1, special])


@pytest.mark.parametrize(
    ("name", "dtype"), [("BF16", torch.bfloat16), ("F16", torch.float16)], ids=["bf16", "f16"]
)
def test_conversions_round_as_torch_does(name: str, dtype: torch.dtype) -> None:
    bits = floats()
    single = bits.view(np.float32)
    expected = torch.from_numpy(single.copy()).to(dtype)

    narrow = convert(bits, "F32", name)
    back = convert(narrow, name, "F32")

    number = ~np.isnan(single)
    assert np.array_equal(narrow[number], expected.view(torch.uint16).numpy()[number])
    assert np.isnan(back.view(np.float32)[~number]).all()
    assert np.array_equal(back[number], expected.float().view(torch.uint32).numpy()[number])


def test_a_format_is_left_alone_where_nothing_changes() -> None:
    bits = floats()

    assert convert(bits, "F32", "F32") is bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_file_is_the_one_that_safetensors_writes(tmp_path: Path, dtype: torch.dtype) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    torch.manual_seed(0)
    state = {
        "b.w": torch.randn(3, 5),
        "a": torch.randn(7),
        "ü": torch.randn(2, 1),
        "s": torch.ones(()),
    }

    write_model_folder(state, tmp_path / "source", tmp_path / "out", dtype)

    save_file({k: v.to(dtype) for k, v in state.items()}, tmp_path / "r", metadata={"format": "pt"})
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "r").read_bytes()


def test_a_large_model_is_split_and_loads_like_the_whole(tmp_path: Path) -> None:
    stock = make_model(tmp_path / "model", tied=False)

    write_model_folder(
        stock.state_dict(), tmp_path / "model", tmp_path / "out", torch.float32, max_file_bytes=9000
    )

    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert sorted(index["weight_map"]) == sorted(stock.state_dict())
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in stock.parameters())
    for path in (tmp_path / "out").glob("*.safetensors"):
        tensors = load_file(path)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 9000
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in stock.state_dict().items())


def test_files_of_a_larger_model_before_do_not_stay(tmp_path: Path) -> None:
    stock = make_model(tmp_path / "model")
    state = {n: p for n, p in stock.state_dict().items() if n != "lm_head.weight"}
    out = tmp_path / "out"
    write_model_folder(state, tmp_path / "model", out, torch.float32, max_file_bytes=9000)

    write_model_folder(state, tmp_path / "model", out, torch.bfloat16)

    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_source_without_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()

    with pytest.raises(InputError, match=r"config\.json' is not a readable model configuration"):
        write_model_folder({"w": torch.ones(1)}, tmp_path / "source", tmp_path, torch.float32)


def test_a_tensor_of_the_wrong_size_never_becomes_a_file_that_looks_right(tmp_path: Path) -> None:
    weight = Weight(name="w", shape=(4,), blocks=lambda: [np.zeros(3, np.uint32)])
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(ValueError, match=r"'w' gave 12 bytes; its shape \[4\] .* takes 16"):
        write_model_files([weight], tmp_path, tmp_path / "out", "F32")


def test_data_begin_at_a_multiple_of_eight_bytes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_model_folder({"odd name": torch.ones(1)}, tmp_path, tmp_path / "out", torch.float32)

    (length,) = struct.unpack("<Q", (tmp_path / "out" / "model.safetensors").read_bytes()[:8])

    assert length % 8 == 0
