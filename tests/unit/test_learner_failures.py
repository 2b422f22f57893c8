"""What ends a rank from below is named in one sentence that says what was kept and what to do."""

import pytest
import torch
import torch.distributed as dist

from learner.failures import named


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to"), "the GPU is out of memory: CUDA"),
        (MemoryError(), "the machine is out of memory: MemoryError"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "the machine is out of memory: [enforce fail]",
        ),
        (
            RuntimeError("[gloo/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv"),
            "a collective operation hung: not every rank came to it within 1800 s",
        ),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]"),
            "another rank of the learner is gone",
        ),
        (dist.DistBackendError("NCCL error in: x"), "another rank of the learner is gone"),
    ],
)
def test_a_failure_is_named_with_what_is_kept_and_what_to_do(
    error: BaseException, words: str
) -> None:
    failure = named(error)

    assert str(failure).startswith(words)
    assert "the checkpoints before are kept; " in str(failure)
    assert "\n" not in str(failure)


def test_a_fault_of_the_program_stays_one() -> None:
    assert named(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    assert named(ValueError("out of memory")) is None
