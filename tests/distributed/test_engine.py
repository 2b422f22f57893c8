"""However a model is loaded, divided over ranks, checkpointed or offloaded, it learns the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from common.config import Config, Learner, Lora, Model
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.resume import load_checkpoint
from learner.checkpoints.state import Progress
from learner.engine.lora import adapted_layers
from learner.engine.mesh import Rank, arrange, training_processes
from learner.engine.model import token_logprobs
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_policy
from learner.engine.sharding import full_state_dict, reduce_now
from learner.engine.shards import gather, local_rows
from learner.packs.packing import Pack, pack_segments, segment_of_examples
from tests.saved_checkpoint import latest_checkpoint
from tests.tiny_policy import VOCABULARY, make_model

pytestmark = pytest.mark.distributed

RunRanks = Callable[..., list[Any]]
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "full": {"activation_checkpointing": "full"},
    "selective": {"activation_checkpointing": "selective"},
    "offload": {"cpu_offload": True, "activation_checkpointing": "full"},
    "replicas": {"replicas": 2},
    "context": {"context_parallel": 2},
    "everything": {
        "replicas": 2,
        "context_parallel": 2,
        "cpu_offload": True,
        "activation_checkpointing": "selective",
    },
}
LEARNING_RATE = 1e-2
NO_ADAPTERS = Lora()
ADAPTERS = Lora(rank=4, alpha=8.0, targets=("q_proj", "o_proj", "down_proj"))


def make_packs(count: int) -> list[Pack]:
    """Packs of two segments each, of different lengths."""
    generator = torch.Generator().manual_seed(1)
    packs = []
    for number in range(count):
        ids = [
            torch.randint(VOCABULARY, (length,), generator=generator).tolist()
            for length in (7 + 2 * number, 6)
        ]
        segments = [segment_of_examples(i, [0.0] + [1.0] * (len(i) - 1), name="x") for i in ids]
        packs += pack_segments(segments, budget=64)
    return packs


def learn_one_step(
    rank: Rank,
    folder: str,
    *,
    packs: int,
    lora: Lora = NO_ADAPTERS,
    dtype: Any = "float32",
    **keys: Any,
) -> dict[str, Any]:
    """Gradients of the sum over all packs in two backward passes, and one optimizer step."""
    settings = Learner(
        ranks=rank.count, pack_tokens=512, learning_rate=LEARNING_RATE, warmup_steps=1, **keys
    )
    rank = arrange(
        rank.device, replicas=settings.replicas, context_parallel=settings.context_parallel
    )
    config = Config(model=Model(path=folder, dtype=dtype, lora=lora), learner=settings)
    model = load_policy(config, rank)
    _perturb_adapters(model)
    optimizer = PolicyOptimizer(model, settings)
    mine = make_packs(packs)[rank.data_index :: rank.data_count]
    total = torch.zeros(())
    for number, pack in enumerate(mine):
        reduce_now(model, now=number == len(mine) - 1)
        loss = -token_logprobs(model, pack, context=rank.context).sum() / 100
        (loss * rank.count).backward()
        total += loss.detach() / (rank.context.count if rank.context else 1)
    torch.distributed.all_reduce(total)
    gradients = gather((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
    report = optimizer.step()
    return {
        "loss": float(total),
        "norm": report.gradient_norm,
        "gradients": gradients,
        "weights": full_state_dict(model),
        "shard": sum(local_rows(parameter)[0].numel() for parameter in model.parameters()),
    }


@torch.no_grad()
def _perturb_adapters(model: nn.Module) -> None:
    """B begins at 0, with which A has no gradient."""
    for _, layer in adapted_layers(model):
        own, rows = local_rows(layer.lora_B.weight)
        whole = torch.linspace(-0.1, 0.1, layer.lora_B.weight.numel())
        own.copy_(whole.view(layer.lora_B.weight.shape)[rows])


def learn_in_every_way(rank: Rank, folder: str, packs: int, left_out: str) -> dict[str, Any]:
    """All variants that the number of ranks allows, in one start of processes."""
    results = {}
    for name, keys in VARIANTS.items():
        if (
            name not in left_out.split()
            and rank.count % (keys.get("replicas", 1) * keys.get("context_parallel", 1)) == 0
        ):
            results[name] = learn_one_step(rank, folder, packs=packs, **keys)
    if rank.count == 1 or not left_out:
        results["adapters"] = learn_one_step(rank, folder, packs=packs, lora=ADAPTERS)
    results["adapters, checkpointed"] = learn_one_step(
        rank,
        folder,
        packs=packs,
        lora=ADAPTERS,
        activation_checkpointing="full",
        cpu_offload=True,
    )
    return results


def assert_same_step(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["norm"] == pytest.approx(expected["norm"], rel=1e-4)
    # The first step of Adam is about the sign of a gradient, also where that is nearly 0.
    for part, atol in (("gradients", 1e-5), ("weights", 0.02 * LEARNING_RATE)):
        assert found[part].keys() == expected[part].keys()
        for name, tensor in expected[part].items():
            torch.testing.assert_close(
                found[part][name], tensor, rtol=1e-4, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )


def by_the_stock_model(folder: Path, packs: int) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of transformers' own model, segment by segment."""
    model = make_model(folder)
    total = torch.zeros(())
    for pack in make_packs(packs):
        for ids in pack.token_ids.split(pack.segment_lengths.tolist()):
            scores = model(ids[None]).logits[0, :-1].log_softmax(-1)
            total = total - scores[torch.arange(len(ids) - 1), ids[1:]].sum() / 100
    total.backward()  # type: ignore[no-untyped-call]
    return total.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def compare_with_one_process(
    run_ranks: RunRanks, folder: Path, count: int, *, left_out: str = ""
) -> list[Any]:
    with training_processes() as rank:
        one = learn_in_every_way(rank, str(folder), 2 * count, "")
    every = run_ranks(learn_in_every_way, count, str(folder), 2 * count, left_out)
    for name, found in (*one.items(), *every[0].items()):
        assert_same_step(found, one["adapters" if name.startswith("adapters") else "plain"])
    for other in every[1:]:
        assert all(other[name]["weights"] == {} for name in other)
    return [one, *every]


@pytest.mark.parametrize(
    "left_out",
    [
        pytest.param("full selective offload context", id="quick"),
        pytest.param("", id="all", marks=pytest.mark.nightly),
    ],
)
def test_four_ranks_learn_what_one_process_learns_however_they_are_arranged(
    run_ranks: RunRanks, tmp_path: Path, left_out: str
) -> None:
    loss, gradients = by_the_stock_model(tmp_path / "model", 8)

    one, *four = compare_with_one_process(run_ranks, tmp_path / "model", 4, left_out=left_out)

    assert one["plain"]["loss"] == pytest.approx(loss, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(one["plain"]["gradients"][name], gradient, rtol=1e-4, atol=1e-5)
    assert {"plain", "replicas", "everything", "adapters, checkpointed"} <= set(four[0])
    assert left_out or set(four[0]) == {*VARIANTS, "adapters", "adapters, checkpointed"}
    for name, copies in (("plain", 1), ("replicas", 2)):
        held = [result[name]["shard"] for result in four]
        assert sum(held) == copies * one["plain"]["shard"]
        assert max(held) <= 1.2 * copies * one["plain"]["shard"] / 4


@pytest.mark.nightly
@pytest.mark.parametrize(("count", "family"), [(2, "llama"), (3, "qwen2")])
def test_other_families_learn_the_same_on_two_ranks_and_on_uneven_shards(
    run_ranks: RunRanks, tmp_path: Path, count: int, family: str
) -> None:
    make_model(tmp_path / "model", family, tied=False)

    one, *ranks = compare_with_one_process(run_ranks, tmp_path / "model", count)

    assert {"plain", "full", "selective", "offload", "adapters"} <= set(ranks[0])
    assert one["plain"]["norm"] > 0


@pytest.mark.nightly
def test_bfloat16_gradients_of_four_ranks_are_close_to_those_of_one(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    make_model(tmp_path / "model")
    keys = {"dtype": "bfloat16", "activation_checkpointing": "selective", "lora": ADAPTERS}
    keys["packs"] = 4
    with training_processes() as rank:
        one = learn_one_step(rank, str(tmp_path / "model"), **keys)

    four = run_ranks(_learn_with, 4, str(tmp_path / "model"), keys)[0]

    assert four["loss"] == pytest.approx(one["loss"], rel=1e-2)
    assert four["norm"] == pytest.approx(one["norm"], rel=2e-2)
    kinds = {tensor.dtype for tensor in four["gradients"].values()}
    assert kinds == {torch.float32}


def _learn_with(rank: Rank, folder: str, keys: dict[str, Any]) -> dict[str, Any]:
    return learn_one_step(rank, folder, **keys)


def train_on(rank: Rank, folder: str, checkpoints: str, *, resume: bool) -> dict[str, Any]:
    """Adapters on frozen weights: two steps with a checkpoint between, or the second only."""
    settings = Learner(ranks=rank.count, pack_tokens=512, learning_rate=LEARNING_RATE)
    config = Config(model=Model(path=folder, lora=ADAPTERS), learner=settings)
    model = load_policy(config, rank)
    optimizer = PolicyOptimizer(model, settings)
    if resume:
        latest = latest_checkpoint(Path(checkpoints))
        assert latest is not None
        load_checkpoint(latest, model, optimizer, rank)
    else:
        _perturb_adapters(model)
        _take_step(model, optimizer, rank)
        with Checkpointer(
            Path(checkpoints), model, optimizer, rank,
            model_source=Path(folder), export_dtype=torch.float32, keep=2,
        ) as checkpointer:  # fmt: skip
            checkpointer.save(Progress(step=1, weight_version=1, ledger=b""))
    saved = full_state_dict(model)
    _take_step(model, optimizer, rank)
    return {"saved": saved, "after": full_state_dict(model), "applied": optimizer.applied}


def _take_step(model: nn.Module, optimizer: PolicyOptimizer, rank: Rank) -> None:
    for pack in make_packs(2)[rank.index :: rank.count]:
        (-token_logprobs(model, pack).sum() * rank.count / 100).backward()
    optimizer.step()


def go_on_in_two_replicas(rank: Rank, folder: str, checkpoints: str) -> dict[str, Any]:
    return train_on(arrange(rank.device, replicas=2), folder, checkpoints, resume=True)


@pytest.mark.nightly
def test_adapters_go_on_from_a_checkpoint_in_another_arrangement(
    run_ranks: RunRanks, tmp_path: Path
) -> None:
    folder, checkpoints = str(tmp_path / "model"), str(tmp_path / "checkpoints")
    make_model(tmp_path / "model")
    with training_processes() as rank:
        one = train_on(rank, folder, checkpoints, resume=False)

    two = run_ranks(go_on_in_two_replicas, 2, folder, checkpoints)[0]

    assert two["applied"] == one["applied"] == 2
    assert all(torch.equal(two["saved"][name], one["saved"][name]) for name in one["saved"])
    for name, tensor in one["after"].items():
        torch.testing.assert_close(two["after"][name], tensor, rtol=1e-4, atol=2e-4)
    exported = load_file(tmp_path / "checkpoints" / "step-000001" / "hf" / "model.safetensors")
    assert exported.keys() == one["saved"].keys()
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, one["saved"][name], rtol=1e-5, atol=1e-6)
