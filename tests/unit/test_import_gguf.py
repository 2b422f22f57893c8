"""A GGUF file becomes a model folder with the numbers it holds, or is refused in one line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import InputError, MachineError
from launch.cli import main
from launch.models.gguf.convert import import_gguf
from learner.checkpoints.shard_files import TensorFolder
from tests.gguf_file import read_back, write_gguf
from tests.tiny_text_model import CHAT_TEMPLATE, make_text_model

FAMILIES = ("llama", "qwen2", "qwen3")
PROBE = torch.tensor([[5, 250, 3, 3, 77, 120, 9]])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_text_model(tmp_path / "model", "llama")


@pytest.fixture
def file(model: Path, tmp_path: Path) -> Path:
    return write_gguf(model, tmp_path / "model.gguf")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0, Kind.F16], ids=lambda kind: kind.name)
def test_every_tensor_holds_what_the_reference_reads_back(
    tmp_path: Path, family: str, kind: Kind
) -> None:
    model = make_text_model(tmp_path / "model", family, tied=False)

    import_gguf(write_gguf(model, tmp_path / "file", kind), tmp_path / "out", "float32")

    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("model", "out"))
    assert before.keys() == after.keys()
    for name, numbers in before.items():
        assert np.array_equal(after[name], read_back(numbers, kind)), name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_imported_model_computes_what_the_model_with_these_numbers_does(
    tmp_path: Path, family: str
) -> None:
    folder = make_text_model(tmp_path / "model", family)
    import_gguf(write_gguf(folder, tmp_path / "file", Kind.Q8_0), tmp_path / "out", "float32")
    known = load_file(folder / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(str(folder))
    numbers = {name: torch.tensor(read_back(n, Kind.Q8_0)) for name, n in known.items()}
    model.load_state_dict(numbers, strict=False)

    imported = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))

    with torch.no_grad():
        assert torch.equal(imported(PROBE).logits, model(PROBE).logits)


def test_the_order_of_queries_and_keys_is_the_one_that_transformers_reads(
    file: Path, tmp_path: Path
) -> None:
    import_gguf(file, tmp_path / "out", "float32")

    theirs = AutoModelForCausalLM.from_pretrained(str(tmp_path), gguf_file=file.name)
    ours = AutoModelForCausalLM.from_pretrained(str(tmp_path / "out"))

    with torch.no_grad():
        expected, found = theirs(PROBE).logits, ours(PROBE).logits
    assert torch.allclose(expected.float(), found, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_layer_of_its_own_stays_and_a_tied_one_is_not_doubled(
    tmp_path: Path, tied: bool
) -> None:
    model = make_text_model(tmp_path / "model", tied=tied)

    import_gguf(write_gguf(model, tmp_path / "file"), tmp_path / "out")

    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] == tied
    assert ("lm_head.weight" in TensorFolder(tmp_path / "out").names()) is not tied


def test_tokenizer_template_and_ending_tokens_come_along(
    model: Path, file: Path, tmp_path: Path
) -> None:
    import_gguf(file, tmp_path / "out")

    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("model", "out"))
    text = "<|im_start|>user\nnaïve 東京 🚀 x = 17<|im_end|>"
    assert after.encode(text) == before.encode(text)
    assert after.chat_template == CHAT_TEMPLATE
    ends = json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"]
    assert ends == before.convert_tokens_to_ids("<|endoftext|>")


def test_the_command_writes_bfloat16_and_checks_it(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["import-gguf", str(file), "--out", str(tmp_path / "out"), "--no-vllm"])

    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "family llama, 20 tensors" in printed
    assert [line.split(":")[0] for line in printed.splitlines()[1:]] == [
        f"ok   {name}"
        for name in ("config", "tensors", "tied weights", "tokenizer", "logits", "round trip")
    ]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


ODD = {
    "another_family": ({"architecture": "gemma"}, r"architecture is 'gemma'; supported are qwen2"),
    "no_embeddings": ({"left_out": ("token_embd.weight",)}, "no tensor token_embd.weight"),
    "a_missing_layer": ({"llama__block_count": 3}, r"tensor blk.2.*is missing, and 8 more"),
    "too_many_layers": ({"llama__block_count": 1}, r"tensor blk.1.*is not of a model"),
    "other_sizes": ({"llama__feed_forward_length": 64}, r"ffn_.* is \[.*48.*\], expected \[.*64"),
    "no_width": ({"llama__embedding_length": 0}, "embedding_length must be a whole number above 0"),
    "scaled": ({"llama__rope__scaling__type": "yarn"}, r"positions are scaled.*published folder"),
    "half_rotated": ({"llama__rope__dimension_count": 4}, "dimension_count is 4, expected"),
    "unknown_tokenizer": ({"tokenizer__ggml__model": "odd"}, "tokenizer.*'odd'"),
}
"""What ``write_gguf`` is told, and what is said of the file."""


@pytest.mark.parametrize("case", ODD)
def test_an_odd_file_is_refused_with_what_is_odd_and_nothing_is_left(
    case: str, model: Path, tmp_path: Path
) -> None:
    changes, said = ODD[case]
    file = write_gguf(model, tmp_path / "odd.gguf", **changes)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=said):
        import_gguf(file, tmp_path / "out")

    assert not [path for path in tmp_path.iterdir() if path.name.startswith("out")]


def test_a_type_that_nobody_reads_back_is_named(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.index(b"blk.0.ffn_gate.weight") + len("blk.0.ffn_gate.weight") + 4 + 2 * 8
    assert content[at] == Kind.Q8_0
    content[at] = Kind.Q8_K  # of intermediate results; no file holds it
    file.write_bytes(content)

    with pytest.raises(InputError, match=r"Q8_K|type 15"):
        import_gguf(file, tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 3, 11, 200, 0.3, 0.6, 0.999])
def test_a_file_that_is_cut_off_is_refused(file: Path, tmp_path: Path, kept: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(kept if kept > 1 or not kept else kept * len(content))])

    with pytest.raises(InputError, match=r"cut off|not a GGUF file"):
        import_gguf(file, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_list_longer_than_the_file_is_refused_at_once(file: Path, tmp_path: Path) -> None:
    content = bytearray(file.read_bytes())
    at = content.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 8
    content[at : at + 8] = (2**60).to_bytes(8, "little")
    file.write_bytes(content)

    with pytest.raises(InputError, match="cut off, damaged"):
        import_gguf(file, tmp_path / "out")


def test_other_files_and_taken_folders_are_told_apart(
    model: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        (model / "config.json", tmp_path / "out"): "is not a GGUF file: it begins with b'{",
        (tmp_path / "none", tmp_path / "out"): "No such file",
        (tmp_path, tmp_path / "out"): "Is a directory",
        (file, model): "exists and is not empty; name another folder with --out",
        (file, tmp_path / "no" / "out"): "is no folder",
    }
    for (source, out), words in said.items():
        assert main(["import-gguf", str(source), "--out", str(out)]) == 2
        assert words in capsys.readouterr().err


def test_without_the_package_it_says_how_to_get_it(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)

    with pytest.raises(MachineError, match="pip install gguf"):
        import_gguf(file, tmp_path / "out")
