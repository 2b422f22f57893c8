"""``lzero sft``: bad input is one line, and two ranks learn what one learns."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from launch.cli import main
from tests.tiny_text_model import make_text_model


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    folder = make_text_model(tmp_path / "model")
    traces = tmp_path / "traces.jsonl"
    lines = [
        {"segments": [{"text": "x" * n, "action": False}, {"text": "yes!", "action": True}]}
        for n in range(1, 13)
    ]
    traces.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [
        "--model", str(folder), "--traces", str(traces), "--batch", "4", "--warmup-steps", "1",
        "--save-dtype", "float32", "--normaliser", "10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model", "nowhere"], "nowhere' is not a folder; expected a local Hugging Face"),
        (["--traces", "nowhere.jsonl"], "nowhere.jsonl' (--traces) does not exist"),
        (["--ranks", "0"], "sft.ranks must be at least 1, got 0"),
        (["--config", "nowhere.toml"], "config file nowhere.toml does not exist"),
    ],
)
def test_what_cannot_start_is_one_line(
    options: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    said: str,
) -> None:
    capsys.readouterr()

    assert main(["sft", *options, "--output", str(tmp_path / "out"), *change]) == 2

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("lzero: ")
    assert said in line


@pytest.mark.nightly
@pytest.mark.distributed
def test_two_ranks_learn_what_one_learns_and_resume_each_others_checkpoints(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = ["--checkpoint-every", "2", "--log-every", "1", "--optimizer", "adamw"]
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert main(["sft", *options, "--output", one, *checkpoints]) == 0
    last_of_one = capsys.readouterr().out.splitlines()[-1]
    assert last_of_one.startswith(f"sft wrote model path={one} loss=")

    resumed = ["--ranks", "2", "--resume", "--checkpoints", f"{one}-checkpoints"]
    assert main(["sft", *options, "--output", two, *checkpoints, *resumed]) == 0
    last_of_two = capsys.readouterr().out.splitlines()[-1]

    expected, found = (load_file(Path(path) / "model.safetensors") for path in (one, two))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-5)
    assert last_of_two.partition("loss=")[2] == last_of_one.partition("loss=")[2]


@pytest.mark.nightly
def test_a_trace_that_cannot_be_read_is_named_with_file_and_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "traces.jsonl").write_text('{"segments": []}\n')

    assert main(["sft", *options, "--output", str(tmp_path / "out")]) == 1

    assert "traces.jsonl' line 1: it has no text" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["/proc/x", "/dev/null/x", "{here}/file"])
def test_an_output_that_cannot_be_written_is_one_line(
    options: list[str], output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()

    assert main(["sft", *options, "--output", output.format(here=tmp_path)]) == 2

    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "file.sft.json").exists()
