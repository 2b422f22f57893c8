"""On CUDA a save copies into pinned memory and is what was on the device at its call."""

import os
import signal
from pathlib import Path

import pytest
import torch

from common.config import Learner
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.files import find_damage
from learner.checkpoints.resume import load_checkpoint
from learner.checkpoints.state import Progress
from learner.engine.mesh import training_processes
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_sharded
from learner.engine.sharding import full_state_dict
from tests.tiny_policy import make_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_save_of_a_model_on_cuda_loads_bit_for_bit_there_and_keeps_its_random_state(
    tmp_path: Path,
) -> None:
    make_model(tmp_path / "model")
    with training_processes() as rank:
        assert rank.device.type == "cuda"
        model = load_sharded(tmp_path / "model", rank, compute_dtype=torch.bfloat16)
        optimizer = PolicyOptimizer(model, Learner(learning_rate=0.1))
        for parameter in model.parameters():
            parameter.grad = torch.sin(9 * parameter.detach())
        optimizer.step()
        expected = full_state_dict(model)
        with Checkpointer(
            tmp_path / "checkpoints", model, optimizer, rank,
            model_source=tmp_path / "model", export_dtype=torch.bfloat16, keep=1,
        ) as checkpointer:  # fmt: skip
            assert checkpointer.writer_pid is not None
            os.kill(checkpointer.writer_pid, signal.SIGSTOP)
            written = checkpointer.save(Progress(step=1, weight_version=1, ledger=b"x"))
            drawn = torch.rand(4, device="cuda")
            for parameter in model.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            os.kill(checkpointer.writer_pid, signal.SIGCONT)
            checkpointer.finish()

        again = load_sharded(tmp_path / "model", rank, compute_dtype=torch.bfloat16)
        other = PolicyOptimizer(again, Learner(learning_rate=0.1))
        load_checkpoint(written, again, other, rank)

        loaded = full_state_dict(again)
        assert find_damage(written) == []
        assert all(torch.equal(loaded[name], expected[name]) for name in expected)
        assert torch.equal(torch.rand(4, device="cuda"), drawn)
