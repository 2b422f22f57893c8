"""What a checkpoint costs training: the step after a save against a normal one.

    python -m benchmarks.bench_checkpoint [--quick] [--json PATH] [--ranks N] [--tokens N]

Rounds of: a save, the step after it, waiting until all is written, and a normal step; a step after
a save is compared with the normal ones before and after it. The peers in the same run are
``torch.distributed.checkpoint`` with ``async_save`` (a thread) and with ``save``, of the same state
to the same disk, without the Hugging Face folder and the checksums that ours writes. A machine with
other work to do makes single steps slower by chance: medians are of the ratios within a round.
"""

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn
from torch.distributed.checkpoint import async_save
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save
from torch.multiprocessing import start_processes
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.report import arguments, make_report, ratio
from common.config import Learner
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.state import Progress
from learner.engine.mesh import Rank, training_processes
from learner.engine.model import token_logprobs
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_sharded
from learner.packs.packing import pack_segments, segment_of_examples

SHAPE = {
    "model_type": "qwen3",
    "vocab_size": 8192,
    "hidden_size": 768,
    "intermediate_size": 2304,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
"""67.6 M parameters: 774 MiB of state in float32."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    ranks: int
    tokens: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """Seconds; ``call`` is what the save itself took from the loop, ``wait`` what was left.

    ``normal`` is the mean of the normal steps before and after.
    """

    normal: float
    call: float
    after: float
    wait: float


class Trainer:
    """The steps of one rank."""

    def __init__(self, folder: Path, rank: Rank, tokens: int) -> None:
        self.model = load_sharded(folder / "model", rank, compute_dtype=torch.float32)
        self.optimizer = PolicyOptimizer(self.model, Learner())
        self._rng = np.random.default_rng(rank.index)
        self._tokens = tokens

    def step(self) -> float:
        began = time.perf_counter()
        ids = self._rng.integers(0, SHAPE["vocab_size"], self._tokens)
        weights = [0.0] + [1.0] * (self._tokens - 1)
        segment = segment_of_examples(ids.astype(np.int32), weights, name="noise")
        (pack,) = pack_segments([segment], budget=self._tokens)
        token_logprobs(self.model, pack).mean().neg().backward()
        self.optimizer.step()
        return time.perf_counter() - began


def ours(trainer: Trainer, rank: Rank, folder: Path, rounds: int) -> list[Round]:
    rows = []
    with Checkpointer(
        folder / "ours", trainer.model, trainer.optimizer, rank,
        model_source=folder / "model", export_dtype=torch.bfloat16, keep=1,
    ) as checkpointer:  # fmt: skip
        before = trainer.step()
        for number in range(rounds):
            progress = Progress(step=number, weight_version=number, ledger=b"")
            began = time.perf_counter()
            checkpointer.save(progress)
            called = time.perf_counter()
            after = trainer.step()
            left = time.perf_counter()
            checkpointer.finish()
            wait = time.perf_counter() - left
            behind = trainer.step()
            normal = (before + behind) / 2
            rows.append(Round(normal=normal, call=called - began, after=after, wait=wait))
            before = behind
    return rows


def peer(trainer: Trainer, folder: Path, rounds: int, *, background: bool) -> list[Round]:
    """The same with torch's distributed checkpoints."""
    rows = []
    # Its thread talks to the other ranks too, which must not mix with what training says.
    group = dist.new_group(backend="gloo")
    before = trainer.step()
    for _ in range(rounds):
        path = folder / "peer"
        if dist.get_rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
        dist.barrier()
        began = time.perf_counter()
        state = state_of(trainer.model, trainer.optimizer)
        future = async_save(state, checkpoint_id=path, process_group=group) if background else None
        if future is None:
            save(state, checkpoint_id=path)
        called = time.perf_counter()
        after = trainer.step()
        left = time.perf_counter()
        if future is not None:
            future.result()
        wait = time.perf_counter() - left
        behind = trainer.step()
        normal = (before + behind) / 2
        rows.append(Round(normal=normal, call=called - began, after=after, wait=wait))
        before = behind
    return rows


def state_of(model: nn.Module, optimizer: PolicyOptimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimizer.adamw)
    return {"model": weights, "optimizer": moments}


def measure_rank(index: int, folder: str, settings: Settings) -> None:
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE=str(settings.ranks),
    )  # fmt: skip
    torch.set_num_threads(1)
    path = Path(folder)
    with training_processes(f"file://{folder}/rendezvous") as rank:
        trainer = Trainer(path, rank, settings.tokens)
        for _ in range(2):
            trainer.step()
        rows = {
            "ours": ours(trainer, rank, path, settings.rounds),
            "async_save": peer(trainer, path, settings.rounds, background=True),
            "save": peer(trainer, path, max(1, settings.rounds // 2), background=False),
        }
    torch.save(rows, path / f"rows-{index}.pt")


def slowdown(rounds: list[Round], *, with_call: bool) -> float:
    """Median over rounds of the step after a save, relative to the normal one."""
    return statistics.median(
        (row.after + (row.call if with_call else 0.0)) / row.normal for row in rounds
    )


def measure(settings: Settings) -> tuple[dict[str, float | None], dict[str, float | None]]:
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-") as folder:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPE))
        model.save_pretrained(f"{folder}/model")
        parameters = sum(p.numel() for p in model.parameters())
        del model
        start_processes(measure_rank, args=(folder, settings), nprocs=settings.ranks)
        rows: dict[str, list[Round]] = torch.load(f"{folder}/rows-0.pt", weights_only=False)
    figures: dict[str, float | None] = {
        "parameters_m": parameters / 1e6,
        "state_mib": 3 * 4 * parameters / (1 << 20),
    }
    for name, rounds in rows.items():
        figures[f"{name}_normal_step_s"] = statistics.median(row.normal for row in rounds)
        figures[f"{name}_call_s"] = statistics.median(row.call for row in rounds)
        figures[f"{name}_step_after_over_normal"] = slowdown(rounds, with_call=False)
        figures[f"{name}_call_and_step_after_over_normal"] = slowdown(rounds, with_call=True)
        figures[f"{name}_left_to_wait_s"] = statistics.median(row.wait for row in rounds)
    ratios = {
        f"call_versus_{name}": ratio(figures["ours_call_s"], figures[f"{name}_call_s"])
        for name in ("async_save", "save")
    }
    return figures, ratios


def main() -> None:
    parser = arguments("What a checkpoint costs training.")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512, help="of a step, per rank")
    options = parser.parse_args()
    rounds = 5 if options.quick else 15
    settings = Settings(ranks=options.ranks, tokens=options.tokens, rounds=rounds)
    figures, ratios = measure(settings)
    report = make_report("checkpoint", settings=vars(settings), figures=figures, ratios=ratios)
    report.give(Console(), options.json)


if __name__ == "__main__":
    main()
