"""Compiled layers compute the same, and a machine that cannot compile says so and goes on."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from common.config import Config, Learner, Model
from learner.engine.mesh import training_processes
from learner.engine.model import token_logprobs
from learner.engine.policy import load_policy
from learner.engine.sharding import full_state_dict
from learner.engine.shards import gather
from learner.packs.packing import pack_segments, segment_of_examples
from tests.tiny_policy import make_model

pytestmark = pytest.mark.nightly


def learn(folder: Path, **keys: Any) -> tuple[Any, ...]:
    """Log-probabilities and gradients of two packs of different lengths."""
    config = Config(model=Model(path=str(folder)), learner=Learner(pack_tokens=512, **keys))
    scores = []
    with training_processes() as rank:
        model = load_policy(config, rank)
        for lengths in ((17, 9), (5, 12, 8)):
            segments = [
                segment_of_examples(list(range(n)), [0.0] + [1.0] * (n - 1), name="x")
                for n in lengths
            ]
            (pack,) = pack_segments(segments, budget=64)
            logprobs = token_logprobs(model, pack)
            logprobs.sum().backward()
            scores.append(logprobs.detach())
        gradients = gather((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
        return scores, gradients, full_state_dict(model)


# The compiler itself looks at the gradient of a tensor that has none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("mode", ["none", "selective"])
def test_compiled_layers_compute_the_same(tmp_path: Path, mode: str) -> None:
    make_model(tmp_path)
    expected = learn(tmp_path)

    found = learn(tmp_path, compile=True, activation_checkpointing=mode)

    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)


def test_without_a_compiler_layers_stay_as_they_are_and_a_warning_says_why(tmp_path: Path) -> None:
    script = (
        "import torch, logging; from torch import nn; logging.basicConfig();"
        "from learner.engine.compilation import compile_layers;"
        "model = nn.Module(); model.model = nn.Module();"
        "model.model.layers = nn.ModuleList([nn.Linear(3, 3)]);"
        "print('compiled', compile_layers(model, torch.device('cpu')))"
    )
    environment = os.environ | {
        "CXX": str(tmp_path / "no-compiler"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
        env=environment, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "compiled False"
    assert "layers are not compiled (learner.compile): torch.compile needs a C++" in done.stderr
