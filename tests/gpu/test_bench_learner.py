"""The learner's benchmark runs on CUDA as published figures ask: half precision, checkpointing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.learner import packs as learner_packs
from benchmarks.learner import versus as learner_versus
from benchmarks.learner.models import TINY
from learner.engine.mesh import training_processes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SHAPE = {**TINY, "hidden_size": 256, "head_dim": 64}


@pytest.mark.parametrize("compiled", [False, True])
def test_full_length_packs_give_figures_on_cuda(compiled: bool, tmp_path: Path) -> None:
    cuda = learner_packs.CUDA_QUICK
    settings = replace(
        cuda, shape=SHAPE, lengths=(2048, 4096), engine=replace(cuda.engine, compile=compiled)
    )

    with training_processes() as rank:
        report = learner_packs.measure_packs(settings, tmp_path, rank, peak=1e15)

    assert report.settings["attention"] != "one_by_one"
    for name in ("tokens_per_s", "mfu", "peak_memory_gib"):
        assert (report.figures[f"{name}_4096"] or 0) > 0


def test_padding_is_compared_on_cuda(tmp_path: Path) -> None:
    cuda = learner_versus.CUDA_QUICK
    mix = replace(cuda.mix, shrink=32, vocabulary=SHAPE["vocab_size"])
    engine = replace(cuda.engine, pack_tokens=1024, compile=False)

    with training_processes() as rank:
        report = learner_versus.measure_versus(
            replace(cuda, shape=SHAPE, mix=mix, engine=engine), tmp_path, rank, peak=1e15
        )

    assert (report.figures["mfu"] or 0) > 0
    assert (report.ratios["useful_tokens_per_s_vs_padded"] or 0) > 0
