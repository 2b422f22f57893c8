import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from common.errors import InputError
from launch.world.tiny_model import untie, write_initial_model
from launch.world.tokenizer import train_tokenizer
from launch.world.traces import write_traces
from learner.model import load_model, token_logprobs
from learner.model_folder import write_model_folder
from learner.packing import pack_segments
from learner.sft import run
from learner.sft_config import SftConfig
from learner.sft_optimizer import learning_rate_share
from learner.sft_traces import read_traces


@pytest.fixture(scope="module")
def initial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("initial")
    write_initial_model(folder, train_tokenizer(seed=0, traces_read=200), seed=0)
    return folder


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    write_traces(path, seed=0, count=64)
    return path


def mean_loss(folder: Path, traces: Path) -> float:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    (pack,) = pack_segments(read_traces(traces, tokenizer, 1.0), budget=100_000)
    with torch.no_grad():
        return -token_logprobs(load_model(folder), pack).mean().item()


def test_training_lowers_the_loss_and_writes_a_folder_that_loads(
    initial: Path, traces: Path, tmp_path: Path
) -> None:
    output = tmp_path / "trained"
    config = SftConfig(
        model=str(initial), traces=str(traces), output=str(output), epochs=2, warmup_steps=1
    )
    run(config)
    assert mean_loss(output, traces) < 0.8 * mean_loss(initial, traces)
    assert (
        load_file(output / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.bfloat16
    )


def test_only_action_tokens_have_full_weight_and_the_first_token_none(
    initial: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    spans = [{"text": "Who?\n", "action": False}, {"text": "<code>1</code>", "action": True}]
    path.write_text(json.dumps({"segments": spans}) + "\n")
    tokenizer = Tokenizer.from_file(str(initial / "tokenizer.json"))
    (example,) = read_traces(path, tokenizer, 0.25)
    given = len(tokenizer.encode("Who?\n").ids)
    assert example.weights.tolist() == [0.0] + [0.25] * (given - 1) + [1.0] * 3
    assert tokenizer.decode(example.token_ids.tolist(), skip_special_tokens=False) == (
        "Who?\n<code>1</code>"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("{\n", "line 1"),
        ('{"segments": [{"text": "x"}]}\n', "line 1"),
        ('{"segments": []}\n', "line 1"),
    ],
)
def test_a_malformed_trace_file_is_named_with_its_line(
    initial: Path, tmp_path: Path, text: str, expected: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        read_traces(path, Tokenizer.from_file(str(initial / "tokenizer.json")), 0.3)


def test_a_missing_trace_file_is_named(initial: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(initial / "tokenizer.json"))
    with pytest.raises(InputError, match="cannot be read"):
        read_traces(tmp_path / "none.jsonl", tokenizer, 0.3)


def test_the_learning_rate_rises_then_falls_linearly() -> None:
    shares = [learning_rate_share(step, 100, warmup=10, final=0.02) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[50] == pytest.approx(0.51)
    assert shares[100] == pytest.approx(0.02)
    assert max(shares) == shares[9] == pytest.approx(1.0 - 0.98 * 0.09)


def test_untying_gives_the_output_layer_its_own_tensor_and_changes_nothing_else(
    initial: Path, traces: Path, tmp_path: Path
) -> None:
    copied = shutil.copytree(initial, tmp_path / "untied")
    untie(copied)
    assert "lm_head.weight" in load_file(copied / "model.safetensors")
    assert not load_model(copied).config.tie_word_embeddings
    assert mean_loss(copied, traces) == pytest.approx(mean_loss(initial, traces), abs=1e-6)


def test_a_model_folder_keeps_what_is_already_there(initial: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("kept")
    write_model_folder({"x": torch.ones(2)}, initial, tmp_path, torch.float32)
    assert (tmp_path / "README.md").read_text() == "kept"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
