"""A checkpoint is whole or absent, and is refused where it does not belong."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoModelForCausalLM

from common.config import Gae, Learner, Lora
from common.errors import InputError
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.resume import load_checkpoint, load_newest
from learner.checkpoints.state import Progress, Trainee
from learner.engine.critic import CriticModel, load_critic
from learner.engine.lora import adapted_layers
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import load_model
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_sharded
from learner.engine.sharding import full_state_dict, shard
from learner.sft.config import Sft
from learner.sft.optimizer import SftOptimizer
from tests.saved_checkpoint import latest_checkpoint, save_checkpoint
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


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    make_model(tmp_path / "small")
    make_model(tmp_path / "wide", width=64)

    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "small", rank)
        model, optimizer = build(tmp_path / "wide", rank)
        with pytest.raises(InputError, match=r"hidden_size 32 saved, 64 given"):
            load_checkpoint(written, model, optimizer, rank)


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-3])
    elif how == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("file", "how", "said"),
    [
        (
            "state/rank-00000.safetensors",
            "truncated",
            r"rank-00000\.safetensors has \d+ bytes, \d+",
        ),
        ("state/rank-00000.safetensors", "flipped", r"rank-00000\.safetensors has checksum"),
        ("hf/model.safetensors", "flipped", r"hf/model\.safetensors has checksum"),
        ("ledger.bin", "missing", r"ledger\.bin is missing"),
        ("checkpoint.json", "missing", r"its checkpoint\.json is missing"),
        ("manifest.json", "truncated", r"its manifest\.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, how: str, said: str
) -> None:
    make_model(tmp_path / "model")
    folder = tmp_path / "checkpoints"
    with training_processes() as rank:
        save(1, folder, tmp_path / "model", rank)
        newest = save(2, folder, tmp_path / "model", rank)
        damage(newest / file, how)
        model, optimizer = build(tmp_path / "model", rank)

        progress = load_newest(folder, model, optimizer, rank)

    assert progress is not None
    assert progress.step == 1
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert re.search(rf"checkpoint '.*step-000002' is damaged: .*{said}", warning.message)
    assert "set aside as" in warning.message
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", "step-000002.damaged"]


def test_where_all_are_damaged_one_error_lists_them(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    folder = tmp_path / "checkpoints"
    with training_processes() as rank:
        for step in (1, 2):
            damage(save(step, folder, tmp_path / "model", rank) / "ledger.bin", "flipped")
        model, optimizer = build(tmp_path / "model", rank)

        with pytest.raises(
            InputError,
            match=r"none of the 2 checkpoints .*step-000002.*ledger.*step-000001.*ledger",
        ):
            load_newest(folder, model, optimizer, rank)
    # The next attempt must find them again, not begin from the start.
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", "step-000002"]


def test_a_checkpoint_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "model", rank)
        model, _ = build(tmp_path / "model", rank)
        config = Sft(model="", traces="", output="")
        muon = SftOptimizer(model, config, steps=1)

        with pytest.raises(
            InputError, match=r"holds no 'optimizer\..*momentum_buffer' .* another optimizer"
        ):
            load_checkpoint(written, model, muon, rank)


def test_without_any_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)

        assert load_newest(tmp_path / "checkpoints", model, optimizer, rank) is None


def test_a_checkpoint_that_does_not_belong_here_is_refused_and_not_passed_over(
    tmp_path: Path,
) -> None:
    make_model(tmp_path / "model")
    folder = tmp_path / "checkpoints"
    with training_processes() as rank:
        save(1, folder, tmp_path / "model", rank)
        newest = save(2, folder, tmp_path / "model", rank)
        (newest / "checkpoint.json").write_text(json.dumps({"format_version": 7}))
        model, optimizer = build(tmp_path / "model", rank)

        with pytest.raises(InputError, match="format version 7, but this program reads version 2"):
            load_newest(folder, model, optimizer, rank)
    assert newest.is_dir()


def test_another_tokenizer_than_the_one_saved_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text(Tokenizer(BPE()).to_str())
    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "model", rank)
        model, optimizer = build(tmp_path / "model", rank)
        load_checkpoint(written, model, optimizer, rank, model_source=tmp_path / "model")
        changed = Tokenizer(BPE(vocab={"a": 0}, merges=[]))
        (tmp_path / "model" / "tokenizer.json").write_text(changed.to_str())

        with pytest.raises(InputError, match=r"is another tokenizer than the one in checkpoint"):
            load_checkpoint(written, model, optimizer, rank, model_source=tmp_path / "model")


def test_the_random_state_is_that_of_the_save(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "model", rank)
        expected = torch.rand(3)
        model, optimizer = build(tmp_path / "model", rank)

        load_checkpoint(written, model, optimizer, rank)

    assert torch.equal(torch.rand(3), expected)


def test_a_model_trained_beside_the_policy_is_kept_with_it(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        model, optimizer = build(tmp_path / "model", rank)
        critic = make_critic(tmp_path / "model", rank)
        for parameter in critic.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.5)
        critic.step()
        with Checkpointer(
            tmp_path / "checkpoints", model, optimizer, rank,
            model_source=tmp_path / "model", export_dtype=torch.float32, keep=1,
            others={"critic": Trainee(critic.model, critic.optimizer)},
        ) as checkpointer:  # fmt: skip
            written = checkpointer.save(Progress(step=1, weight_version=1, ledger=b""))
        expected = full_state_dict(critic.model)
        again = make_critic(tmp_path / "model", rank)

        load_checkpoint(
            written,
            model,
            optimizer,
            rank,
            others={"critic": Trainee(again.model, again.optimizer)},
        )

        loaded = full_state_dict(again.model)
        moments = [optimizer_state(one.optimizer) for one in (critic, again)]
    assert bool(expected["value.weight"].abs().max() > 0)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert all(torch.equal(a, b) for a, b in zip(*moments, strict=True))
    assert again.optimizer.applied == 1
    assert "value.weight" not in load_file(written / "hf" / "model.safetensors")


def make_critic(folder: Path, rank: Rank) -> CriticModel:
    return load_critic(
        folder, rank, config=Gae(), learner=Learner(), gamma=1.0,
        compute_dtype=torch.float32,
    )  # fmt: skip


def optimizer_state(optimizer: PolicyOptimizer) -> list[torch.Tensor]:
    states = optimizer.adamw.state.values()
    return [value.full_tensor() for state in states for value in state.values() if value.ndim]


def test_a_critic_is_not_made_up_from_a_checkpoint_without_one(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        written = save(1, tmp_path / "checkpoints", tmp_path / "model", rank)
        model, optimizer = build(tmp_path / "model", rank)
        critic = make_critic(tmp_path / "model", rank)

        with pytest.raises(InputError, match="holds no critic; it was trained without"):
            load_checkpoint(
                written, model, optimizer, rank,
                others={"critic": Trainee(critic.model, critic.optimizer)},
            )  # fmt: skip


def test_adapters_are_kept_and_are_merged_into_the_exported_weights(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    lora = Lora(rank=2, alpha=6.0, targets=("q_proj", "down_proj"))
    with training_processes() as rank:
        model = load_sharded(
            tmp_path / "model", rank, compute_dtype=torch.float32, lora=lora, seed=1
        )
        for name, parameter in model.state_dict().items():
            if "lora_B" in name:
                local = parameter.to_local()
                local.copy_(torch.randn(local.shape))
        optimizer = PolicyOptimizer(model, Learner())
        progress = Progress(step=1, weight_version=1, ledger=b"")
        written = save_checkpoint(
            tmp_path / "checkpoints", progress, model, optimizer, rank,
            model_source=tmp_path / "model", export_dtype=torch.float32, keep=1,
        )  # fmt: skip
        merged = {f"{name}.weight": layer.merged() for name, layer in adapted_layers(model)}
        merged = {name: weight.full_tensor() for name, weight in merged.items()}
        again = load_sharded(
            tmp_path / "model", rank, compute_dtype=torch.float32, lora=lora, seed=2
        )
        load_checkpoint(written, again, PolicyOptimizer(again, Learner()), rank)
        pairs = [
            (before.full_tensor(), after.full_tensor())
            for before, after in zip(model.parameters(), again.parameters(), strict=True)
        ]

    exported = load_file(written / "hf" / "model.safetensors")
    original = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(before, after) for before, after in pairs)
    assert exported.keys() == original.keys()
    assert len(merged) == 4
    for name, tensor in exported.items():
        if name in merged:
            torch.testing.assert_close(tensor, merged[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(tensor, original[name])
        else:
            assert torch.equal(tensor, original[name])


def test_adapters_of_another_scale_are_refused(tmp_path: Path) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        models = [
            load_sharded(
                tmp_path / "model", rank, compute_dtype=torch.float32,
                lora=Lora(rank=2, alpha=alpha, targets=("q_proj",)),
            )
            for alpha in (6.0, 8.0)
        ]  # fmt: skip
        optimizers = [PolicyOptimizer(model, Learner()) for model in models]
        written = save_checkpoint(
            tmp_path / "checkpoints", Progress(step=1, weight_version=1, ledger=b""),
            models[0], optimizers[0], rank,
            model_source=tmp_path / "model", export_dtype=torch.float32, keep=1,
        )  # fmt: skip

        with pytest.raises(InputError, match=r"adapter_scales \[3\.0\] saved, \[4\.0\] given"):
            load_checkpoint(written, models[1], optimizers[1], rank)


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
