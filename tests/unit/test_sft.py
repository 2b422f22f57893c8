import argparse
import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from common.config.meaning import keys_in
from common.errors import ConfigError, InputError, LZeroError
from launch.data.world.tiny_model import untie, write_initial_model
from launch.data.world.tokenizer import train_tokenizer
from launch.data.world.traces import write_traces
from learner.checkpoints.model_folder import write_model_folder
from learner.engine.model import load_model, token_logprobs
from learner.engine.schedule import learning_rate_share
from learner.packs.packing import pack_segments
from learner.sft.config import Sft, add_options, config_from_options, option
from learner.sft.main import run
from learner.sft.traces import chat_template, read_traces
from tests.tiny_text_model import make_text_model


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
    config = Sft(
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
    with pytest.raises(InputError, match=r"none\.jsonl does not exist"):
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


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A model of 15,000 parameters that knows bytes."""
    return make_text_model(tmp_path / "small")


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """16 short conversations, each with the same answer."""
    path = tmp_path / "chats.jsonl"
    lines = [
        [{"role": "user", "content": f"{n} ?"}, {"role": "assistant", "content": "yes!"}]
        for n in range(16)
    ]
    path.write_text("".join(json.dumps({"messages": line}) + "\n" for line in lines))
    return path


def short_run(model: Path, traces: Path, output: Path, **changes: Any) -> Sft:
    config = Sft(
        model=str(model), traces=str(traces), output=str(output), batch=4, warmup_steps=1,
        save_dtype="float32", checkpoint_every=1, checkpoints_kept=9, normaliser=10.0,
    )  # fmt: skip
    return dataclasses.replace(config, **changes)


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_cut_off(
    small: Path, chats: Path, tmp_path: Path
) -> None:
    whole = short_run(small, chats, tmp_path / "whole")
    run(whole)
    cut = tmp_path / "cut-checkpoints"
    cut.mkdir()
    shutil.copytree(whole.checkpoint_folder / "step-000002", cut / "step-000002")

    run(short_run(small, chats, tmp_path / "cut", resume=True))

    names = sorted(path.name for path in cut.iterdir())
    assert names == ["step-000002", "step-000003", "step-000004"]
    expected = load_file(tmp_path / "whole" / "model.safetensors")
    found = load_file(tmp_path / "cut" / "model.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_of_other_settings_or_without_checkpoints_cannot_go_on(
    small: Path, chats: Path, tmp_path: Path
) -> None:
    config = short_run(small, chats, tmp_path / "out", checkpoint_every=4)
    with pytest.raises(InputError, match=r"out-checkpoints' holds no checkpoint; leave out"):
        run(dataclasses.replace(config, resume=True))
    run(config)

    with pytest.raises(InputError, match=r"of an earlier run; go on with it by --resume"):
        run(config)
    with pytest.raises(InputError, match=r"is of another run: batch 4 then, 8 now, seed 0 then"):
        run(dataclasses.replace(config, resume=True, batch=8, seed=3))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_conversations_are_learnt_with_either_optimizer(
    small: Path, chats: Path, tmp_path: Path, optimizer: str
) -> None:
    config = short_run(
        small, chats, tmp_path / "out", optimizer=optimizer, epochs=4, context_weight=0.0,
        checkpoint_every=0, activation_checkpointing="full",
    )  # fmt: skip

    run(config)

    assert answer_loss(tmp_path / "out", chats) < 0.7 * answer_loss(small, chats)
    assert not config.checkpoint_folder.exists()


def answer_loss(folder: Path, chats: Path) -> float:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    examples = read_traces(chats, tokenizer, 0.0, render=chat_template(folder))
    (pack,) = pack_segments(examples, budget=100_000)
    with torch.no_grad():
        return -token_logprobs(load_model(folder), pack).mean().item()


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_is_applied(
    small: Path, chats: Path, tmp_path: Path
) -> None:
    weights = load_file(small / "model.safetensors")
    weights["model.norm.weight"].fill_(3e38)  # a number, but not once it is multiplied
    save_file(weights, small / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(
        LZeroError, match=r"norm became (nan|inf) in step 1; lower the learning rates"
    ):
        run(short_run(small, chats, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle = 'x'", "unknown key 'sft.modle'; did you mean 'sft.model'?"),
        ("batch = 'x'", "sft.batch must be a whole number, got 'x'"),
        ("batch = true", "sft.batch must be a whole number, got true"),
        (f"grad_clip = 1{'0' * 400}", "sft.grad_clip must be a number, got 1000"),
        ("batch = 0", "sft.batch must be at least 1, got 0"),
        ("optimizer = 'sgd'", "sft.optimizer must be one of 'muon', 'adamw', got 'sgd'"),
        ("batch = [", "cannot be parsed"),
        ("[run]\nseed = 1", "unknown key 'run'"),
    ],
)
def test_a_configuration_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sft.toml"
    path.write_text(f"[sft]\n{text}")
    required = {"model": "m", "traces": "t", "output": "o"}

    with pytest.raises(ConfigError, match=re.escape(said)):
        config_from_options({"config": path, **required})


def test_options_go_over_the_file_and_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sft.toml"
    path.write_text('[sft]\nmodel = "m"\ntraces = "t"\nbatch = 4\ngrad_clip = 2\n')

    config = config_from_options({"config": path, "output": "o", "batch": 8})

    assert (config.model, config.batch, config.grad_clip) == ("m", 8, 2.0)
    assert config.checkpoint_folder == Path("o-checkpoints")
    with pytest.raises(ConfigError, match="--output missing"):
        config_from_options({"config": path})


def test_a_file_without_the_table_is_refused_with_the_new_name(tmp_path: Path) -> None:
    (tmp_path / "sft.toml").write_text("batch = 4\n")

    with pytest.raises(ConfigError, match=r"sft.toml: batch is now sft.batch: put \[sft\] above"):
        config_from_options({"config": tmp_path / "sft.toml"})


def test_the_help_says_of_every_option_what_it_means_and_takes() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)

    said = " ".join(parser.format_help().split())

    for key in keys_in(Sft):
        assert f"{option(key.name)} " in said
        assert key.meaning.replace("``", "`") in said.replace("- ", "-"), key.name
    assert "How often every trace is seen. (whole number, at least 1" in said
    assert "(epochs); default 1)" in said


def test_an_option_that_is_no_value_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"must be a whole number, got 'many', which is no TOML .*: --batch 8$"
    ):
        config_from_options({"model": "m", "traces": "t", "output": "007", "batch": "many"})


@pytest.mark.parametrize("name", ["sft.toml", "sft.json"])
def test_a_configuration_file_may_begin_with_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    values = {"model": "m", "traces": "t", "output": "o"}
    as_toml = "[sft]\nmodel='m'\ntraces='t'\noutput='o'\n"
    text = json.dumps({"sft": values}) if name.endswith("json") else as_toml
    (tmp_path / name).write_text(text, encoding="utf-8-sig")

    assert config_from_options({"config": tmp_path / name}) == Sft(**values)


@pytest.mark.parametrize("data", [b"[1]", b"[" * 100_000, b"\xff", b"7", b'{"a": NaN}'])
def test_a_configuration_file_that_is_none_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sft.json").write_bytes(data)

    with pytest.raises(ConfigError, match=r"sft\.json"):
        config_from_options({"config": tmp_path / "sft.json"})
