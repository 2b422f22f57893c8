"""A checkpoint is whole or absent, and is refused where it does not belong."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from common.config import Learner
from common.errors import InputError
from learner.checkpoint import (
    Progress,
    latest_checkpoint,
    load_checkpoint,
    read_description,
    save_checkpoint,
)
from learner.model import load_model
from learner.optimizer import PolicyOptimizer
from learner.sharding import Rank, full_state_dict, shard, training_processes
from tests.tiny_policy import make_model


def build(folder: Path, rank: Rank) -> tuple[torch.nn.Module, PolicyOptimizer]:
    model = shard(load_model(folder), rank, compute_dtype=torch.float32)
    return model, PolicyOptimizer(model, Learner())


def save(step: int, folder: Path, source: Path, rank: Rank, *, keep: int = 2) -> Path:
    model, optimizer = build(source, rank)
    progress = Progress(step=step, weight_version=step, ledger=b"ledger")
    return save_checkpoint(
        folder, progress, model, optimizer, rank,
        model_source=source, export_dtype=torch.float32, keep=keep,
    )  # fmt: skip


def test_the_newest_are_kept_and_unfinished_ones_ignored(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        for step in (8, 9, 10):
            save(step, tmp_path / "checkpoints", tmp_path / "model", rank)
    (tmp_path / "checkpoints" / "step-000011.partial").mkdir()

    latest = latest_checkpoint(tmp_path / "checkpoints")

    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-000009", "step-000010", "step-000011.partial"]
    assert latest == tmp_path / "checkpoints" / "step-000010"
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_an_unfinished_folder_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    left = tmp_path / "checkpoints" / "step-000001.partial"
    left.mkdir(parents=True)
    (left / "garbage").write_text("cut off")

    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "model", rank)

    assert sorted(path.name for path in written.iterdir()) == [
        "checkpoint.json",
        "hf",
        "ledger.bin",
        "manifest.json",
        "state",
    ]


def test_the_export_is_a_plain_model_folder(tmp_path: Path) -> None:
    stock = make_model(tmp_path / "model")
    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "model", rank)

    exported = AutoModelForCausalLM.from_pretrained(written / "hf")

    for name, tensor in stock.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor)


def test_another_format_version_is_refused_with_both_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"format_version": 99}))

    with pytest.raises(InputError, match=r"format version 99, but this program reads version 2"):
        read_description(tmp_path)


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no checkpoint: it has no checkpoint\.json"):
        read_description(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    make_model(tmp_path / "small")
    make_model(tmp_path / "wide", width=64)

    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "small", rank)
        model, optimizer = build(tmp_path / "wide", rank)
        with pytest.raises(InputError, match=r"hidden_size 32 saved, 64 given"):
            load_checkpoint(written, model, optimizer, rank)


def test_a_broken_gradient_skips_the_step_and_is_counted(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        before = full_state_dict(model)
        for number, parameter in enumerate(model.parameters()):
            parameter.grad = torch.full_like(parameter, float("nan") if number == 0 else 1.0)

        report = optimizer.step()

        after = full_state_dict(model)
    assert not report.applied
    assert (optimizer.applied, optimizer.skipped) == (0, 1)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
