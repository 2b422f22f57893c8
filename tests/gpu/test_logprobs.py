"""Scores on CUDA in bfloat16 equal the formula in float64, in a fraction of the memory."""

import pytest
import torch

from learner.engine.logprobs import linear_logprobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_scores_and_gradients_equal_the_formula() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(500, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(5000, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    wanted = torch.randint(0, 5000, (500,), device="cuda")

    found = linear_logprobs(hidden, weight, wanted, with_entropy=True, most_logits=500 * 700)
    logs = (hidden.double() @ weight.double().T).log_softmax(-1)
    logprobs = logs.gather(1, wanted[:, None]).squeeze(1)
    entropies = -(logs.exp() * logs).sum(-1)

    torch.testing.assert_close(found.logprobs.double(), logprobs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.entropies.double(), entropies, rtol=1e-3, atol=1e-3)
    ours = torch.autograd.grad(found.logprobs.sum() + found.entropies.sum(), (hidden, weight))
    theirs = torch.autograd.grad(logprobs.sum() + entropies.sum(), (hidden, weight))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=3e-2, atol=3e-2)


def test_memory_stays_far_below_that_of_all_logits() -> None:
    rows, words = 16_384, 151_936
    hidden = torch.randn(rows, 1024, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(words, 1024, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    wanted = torch.randint(0, words, (rows,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()

    linear_logprobs(hidden, weight, wanted, with_entropy=True).logprobs.sum().backward()

    peak = torch.cuda.max_memory_allocated() - before
    assert peak < rows * words * 2 / 2  # half of what the logits alone fill in bfloat16
