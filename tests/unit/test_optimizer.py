"""The optimizer decays matrices once, clips by the norm of all, and skips broken gradients."""

from math import inf, nan

import pytest
import torch
from torch import nn

from common.config import Learner
from learner.engine.optimizer import PolicyOptimizer


class TiedModel(nn.Module):
    """Embeddings that are the output layer too, a biased layer and a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(6, 4)
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight


def with_gradients(model: nn.Module, value: float) -> nn.Module:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    return model


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_decay_shrinks_matrices_once_and_leaves_biases_and_norms() -> None:
    model = with_gradients(TiedModel(), 0.0)
    before = values(model)
    config = Learner(learning_rate=0.1, weight_decay=0.5, warmup_steps=1)

    PolicyOptimizer(model, config).step()

    for name, value in values(model).items():
        factor = 0.95 if value.ndim == 2 else 1.0
        torch.testing.assert_close(value, factor * before[name])


def test_the_rate_rises_and_then_falls_to_its_final_share() -> None:
    config = Learner(learning_rate=0.1, warmup_steps=2, final_share=0.2)
    optimizer = PolicyOptimizer(TiedModel(), config, steps=10)
    rates = []

    for optimizer.applied in range(13):
        rates.append(optimizer.learning_rate)

    expected = [0.1 * min(1, (n + 1) / 2) * (1 - 0.8 * min(n, 10) / 10) for n in range(13)]
    assert rates == pytest.approx(expected)


def test_a_rate_that_falls_over_no_known_number_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"steps are needed for a final_share of 0\.2, below 1"):
        PolicyOptimizer(TiedModel(), Learner(final_share=0.2))


@pytest.mark.parametrize("broken", [nan, inf, -inf])
def test_broken_gradient_leaves_weights_and_moments_and_is_counted(broken: float) -> None:
    model = with_gradients(TiedModel(), 0.1)
    optimizer = PolicyOptimizer(model, Learner(learning_rate=0.1, warmup_steps=4))
    optimizer.step()
    before, rate = values(model), optimizer.learning_rate
    moments = [
        {key: value.clone() for key, value in state.items()}
        for state in optimizer.adamw.state.values()
    ]
    with_gradients(model, 0.1).layer.weight.grad[2, 1] = broken

    report = optimizer.step()

    assert not report.applied
    assert (optimizer.applied, optimizer.skipped) == (1, 1)
    assert optimizer.learning_rate == rate
    for name, value in values(model).items():
        assert torch.equal(value, before[name])
    for state, old in zip(optimizer.adamw.state.values(), moments, strict=True):
        assert all(torch.equal(state[key], old[key]) for key in old)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_are_clipped_together_and_the_norm_is_reported_unclipped() -> None:
    config = Learner(learning_rate=0.1, warmup_steps=1, grad_clip=0.5)
    model, twin = with_gradients(TiedModel(), 0.3), with_gradients(TiedModel(), 0.3)
    count = sum(parameter.numel() for parameter in model.parameters())
    norm = 0.3 * count**0.5
    for parameter in twin.parameters():
        assert parameter.grad is not None
        parameter.grad.mul_(0.5 / norm)
    plain = torch.optim.AdamW(twin.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.0)

    report = PolicyOptimizer(model, config).step()
    plain.step()

    assert report.gradient_norm == pytest.approx(norm, rel=1e-5)
    for name, value in values(model).items():
        torch.testing.assert_close(value, values(twin)[name], rtol=1e-5, atol=1e-6)


def test_rate_rises_over_the_warm_up_and_then_stays() -> None:
    model = TiedModel()
    optimizer = PolicyOptimizer(model, Learner(learning_rate=1.0, warmup_steps=4))

    rates = []
    for _ in range(6):
        with_gradients(model, 0.1)
        rates.append(optimizer.step().learning_rate)

    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_wholly_frozen_model_is_refused() -> None:
    model = TiedModel().requires_grad_(False)

    with pytest.raises(ValueError, match="no trainable parameter; expected weights or adapters"):
        PolicyOptimizer(model, Learner())
