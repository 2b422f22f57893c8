"""Muon in float32 does what torch's does in bfloat16, but for the rounding."""

import pytest
import torch
from torch.optim import Muon

from learner.sft.muon import SingleMuon, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def trained_by(kind: type[Muon], shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    optimizer = kind(
        [weight], lr=0.1, weight_decay=0.2, momentum=0.9, adjust_lr_fn="original"
    )  # fmt: skip
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_its_steps_are_those_of_torch_but_for_rounding(shape: tuple[int, int]) -> None:
    torch.testing.assert_close(
        trained_by(SingleMuon, shape), trained_by(Muon, shape), rtol=0, atol=0.01
    )


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_the_iteration_is_the_formula_on_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    a, b, c = COEFFICIENTS
    values = values / values.norm()
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5

    found = orthogonalised(matrix, COEFFICIENTS, steps=5, eps=1e-7)

    torch.testing.assert_close(found, left @ values.diag() @ right)
    assert ((values > 0.5) & (values < 1.5)).all()
