"""Rows of the verification table in docs/objectives.md about sampling and counting."""

import itertools
from dataclasses import fields
from math import exp, fsum, inf
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor

from common.config import Apg, Objective
from common.wire.hosting import Generate
from common.wire.records import NOT_AN_ACTION, Segment, Task
from learner.advantages import group_loo
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import TaskOrder
from learner.engine.logprobs import linear_logprobs
from learner.objectives.sampled import Normalisers, SampledActions, measure_ratios
from learner.objectives.token_gae import token_advantages
from learner.packs.batch import build_batch
from learner.packs.packing import pack_segments, segment_of_actions
from learner.step.metrics import PackingReport, StepMetrics
from learner.step.tally import Tally, tally_pack
from tests.exact_policies import BEHAVIOUR, LEARNER, UNBOUNDED, loss_of, numbers


def tally_of(learner: Tensor, behaviour: list[float], *, owner: list[int] | None = None) -> Tally:
    """The tally of one action, or of those in ``owner``, as if it filled a pack."""
    owner = [0] * len(behaviour) if owner is None else owner
    segment = Segment(
        token_ids=np.arange(len(owner) + 1, dtype=np.int32),
        action_index=np.array([NOT_AN_ACTION, *owner], dtype=np.int32),
        behaviour_logprobs=np.array([0.0, *behaviour], dtype=np.float32),
        versions=np.array([NOT_AN_ACTION, *[0] * len(owner)], dtype=np.int32),
    )
    (pack,) = pack_segments(
        [segment_of_actions(segment, name="x", first_action_id=0)], budget=len(segment.token_ids)
    )
    result = loss_of(
        learner.float(), pack.behaviour_logprobs, pack.action_ids, torch.ones(1 + max(owner))
    )
    return tally_pack(pack, learner.float(), result.loss, result.verdicts, version=0)


def metrics_of(tally: Tally) -> StepMetrics:
    batch = build_batch([], learner_version=0, objective=UNBOUNDED).summary
    return StepMetrics(
        version=0,
        batch=batch,
        tally=tally,
        updates=(),
        seconds=1.0,
        packing=PackingReport(budget=8),
    )


def test_v10_squares_of_the_reference_ratios() -> None:
    """The other estimates of this action: test_train_step.py."""
    learner = torch.tensor([-0.1, -1.2, -0.05, -2.3, -0.7])

    tally = tally_of(learner, [-0.12, -1.0, -0.05, -2.5, -0.9])

    assert tally.d_squared / tally.targets == pytest.approx(0.02408, abs=1e-6)
    assert metrics_of(tally).diagnostics()["k2"] == pytest.approx(0.01204, abs=1e-6)
    assert metrics_of(tally).diagnostics()["k1"] == pytest.approx(-0.044, abs=1e-6)


def test_v17_effective_sample_size_and_divergence_of_the_whole_population() -> None:
    """Each arm tallied once and counted with its chance under the behaviour policy."""
    chances, learner = BEHAVIOUR.softmax(0), LEARNER.log_softmax(0)
    sums: dict[str, float] = {"actions": 0.0, "rho": 0.0, "rho_squared": 0.0, "k3": 0.0}
    for arm in range(3):
        own = tally_of(learner[arm : arm + 1], [float(BEHAVIOUR.log_softmax(0)[arm])])
        for name in sums:
            sums[name] += float(chances[arm]) * getattr(own, name)

    metrics = metrics_of(Tally(targets=1.0, **sums))

    assert metrics.effective_sample_size == pytest.approx(0.81688129, abs=1e-6)
    found = metrics.diagnostics()
    assert found["rho_mean"] == pytest.approx(1.0, abs=1e-6)
    assert found["chi2"] == pytest.approx(0.22416808, abs=1e-6)
    assert found["k3"] == pytest.approx(0.08768004, abs=1e-6)


def test_v17_masks_leave_the_normaliser_as_it_is() -> None:
    """Two actions of which one is outside the trust region: the other counts one half."""
    learner = torch.tensor([-1.0, -1.0], requires_grad=True)

    result = loss_of(
        learner, torch.tensor([-1.0, -2.0]), torch.arange(2), torch.ones(2), Objective(),
        normalisers=Normalisers(tokens=2, actions=2),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(result.loss, learner)

    assert result.verdicts.masked.tolist() == [False, True]
    assert gradient.tolist() == [-0.5, 0.0]


ARM_REWARDS = numbers(1.0, 0.0, 0.5)


SIZES = (1, 2, 3, 4)
GROUPS = [group for size in SIZES for group in itertools.product(range(3), repeat=size)]
"""Every group of arms of every size."""


def advantages_of_groups() -> Tensor:
    """Of all members of GROUPS as one batch, without the batch's scale."""
    returns = [np.array([float(ARM_REWARDS[arm])]) for group in GROUPS for arm in group]
    names = [str(number) for number, group in enumerate(GROUPS) for _ in group]
    differences = [
        float(ARM_REWARDS[arm]) - fmean(float(ARM_REWARDS[other]) for other in others)
        for group in GROUPS
        for i, arm in enumerate(group)
        if (others := group[:i] + group[i + 1 :])
    ]
    scale = float(np.std(differences)) + 1e-6
    return torch.from_numpy(np.concatenate(group_loo(returns, names, clip=inf))) * scale


def gradient_of_groups(size: int, sampler: Tensor) -> Tensor:
    """Expected ascent direction over the groups of one size drawn by ``sampler``, corrected."""
    sizes = torch.tensor([len(group) for group in GROUPS for _ in group])
    chances = torch.stack(
        [sampler.softmax(0)[list(group)].prod() for group in GROUPS for _ in group]
    )
    arms = torch.tensor([arm for group in GROUPS for arm in group])
    weights = torch.where(sizes == size, chances / size, 0.0)
    logits = LEARNER.clone().requires_grad_()
    result = loss_of(
        logits.log_softmax(0)[arms], sampler.log_softmax(0)[arms], torch.arange(len(arms)),
        advantages_of_groups() * weights,
    )  # fmt: skip
    return torch.autograd.grad(-result.loss, logits)[0]


@pytest.mark.parametrize("sampler", [LEARNER, BEHAVIOUR], ids=["on-policy", "off-policy"])
@pytest.mark.parametrize("size", SIZES)
def test_v20_leave_one_out_keeps_the_whole_gradient_in_groups_of_any_size(
    size: int, sampler: Tensor
) -> None:
    """The own mean instead would keep (m - 1) / m of it: test_advantages.py."""
    logits = LEARNER.clone().requires_grad_()
    (exact,) = torch.autograd.grad((logits.softmax(0) * ARM_REWARDS).sum(), logits)

    found = gradient_of_groups(size, sampler)

    kept = 0.0 if size == 1 else 1.0
    torch.testing.assert_close(found, kept * exact, rtol=1e-5, atol=1e-6)


def four_words(temperature: float) -> Tensor:
    """Log-probabilities of four words with logits 2, 1, 0, -1, by the learner's own scoring."""
    hidden, weight = torch.ones(4, 1), torch.tensor([[2.0], [1.0], [0.0], [-1.0]])
    return linear_logprobs(hidden, weight, torch.arange(4), temperature=temperature).logprobs


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (1.0, [-0.4402, -1.4402, -2.4402, -3.4402]),
        (0.7, [-0.2707, -1.6992, -3.1278, -4.5564]),
    ],
)
def test_v21_scores_are_those_of_the_sampling_temperature(
    temperature: float, expected: list[float]
) -> None:
    assert four_words(temperature).tolist() == pytest.approx(expected, abs=1e-4)


def test_v21_a_forgotten_temperature_or_filter_shows_in_the_ratios() -> None:
    forgotten = (four_words(1.0) - four_words(0.7)).exp()
    full = four_words(1.0).exp()
    filtered = torch.where(full.cumsum(0) - full < 0.8, full, 0.0)
    filtered = filtered / filtered.sum()

    assert forgotten[[0, 3]].tolist() == pytest.approx([0.84, 3.05], abs=0.01)
    assert filtered.tolist() == pytest.approx([0.731, 0.269, 0.0, 0.0], abs=1e-3)
    assert (full / filtered)[:2].tolist() == pytest.approx([0.881, 0.881], abs=1e-3)
    assert (full / filtered).log()[0].item() == pytest.approx(-0.127, abs=1e-3)


def test_v21_requests_carry_no_filter_that_would_change_the_distribution() -> None:
    ids = np.array([1], dtype=np.int32)
    names = {field.name for field in fields(Generate)} - {"number", "token_ids", "max_tokens"}
    request = Generate(number=1, token_ids=ids, max_tokens=4, temperature=0.7)

    assert names == {"temperature", "stop_token_ids", "stop_strings", "seed"}
    assert (request.stop_token_ids, request.stop_strings, request.seed) == ((), (), None)


def sum_error(kind: torch.dtype, seed: int) -> float:
    """Of S over 4096 tokens, log-probabilities being kept as ``kind``."""
    generator = torch.Generator().manual_seed(seed)
    behaviour = -10 * torch.rand(4096, generator=generator).double()
    learner = behaviour + torch.randn(4096, generator=generator).double()
    sampled = SampledActions(
        behaviour_logprobs=behaviour.to(kind),
        action_ids=torch.zeros(4096, dtype=torch.int64),
        versions=torch.zeros(4096, dtype=torch.int64),
        advantages=torch.ones(1),
        learner_version=0,
        max_staleness=0,
    )
    found = measure_ratios(learner.to(kind), sampled, token_veto=1e9).log_rho.item()
    return abs(found - fsum((learner - behaviour).tolist()))


def test_v23_a_long_action_sums_exactly() -> None:
    single = [sum_error(torch.float32, seed) for seed in range(4)]
    half = [sum_error(torch.bfloat16, seed) for seed in range(4)]

    assert max(single) < 1e-3
    assert max(half) > 0.1, "half precision would be too coarse however it is summed"


def test_v23_token_advantages_of_a_long_action_equal_the_recurrence() -> None:
    rng = np.random.default_rng(0)
    lengths = [4096, 1, 700, 2]
    owner = np.repeat([2, 0, 3, 1], lengths)
    values = rng.normal(size=len(owner))
    returns = rng.normal(size=4)
    expected, following = np.zeros(len(owner)), 0.0
    for t in reversed(range(len(owner))):
        last = t + 1 == len(owner) or owner[t + 1] != owner[t]
        reward, after = (returns[owner[t]], 0.0) if last else (0.0, values[t + 1])
        following = reward + 0.99 * after - values[t] + 0.99 * 0.99 * (0.0 if last else following)
        expected[t] = following

    found, _ = token_advantages(
        torch.tensor(values, dtype=torch.float32), torch.tensor(owner),
        torch.tensor(returns, dtype=torch.float32), discount=0.99, decay=0.99,
    )  # fmt: skip

    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_v24_admission_stops_at_the_reference_count() -> None:
    """Batches of 512 trajectories, eight versions behind at most, version 100."""
    tasks = [Task(task_id="t", question="?", answers=("a",))]
    state = Coordinator(
        TaskOrder(tasks, seed=0), groups_per_batch=128, group_size=4, max_staleness=8,
        total_batches=1000, max_buffered_bytes=1 << 30,
    )  # fmt: skip
    state.version = 100

    assert state.groups.batch == 512
    assert state.capacity == 55_808
    state.groups.batches_taken = 55_808 // 512 - 1
    assert state.capacity == 512
    state.version = 99
    assert state.capacity == 0


def test_e_of_rho_drops_by_known_amounts_when_truncated() -> None:
    """Weights of log-normal ratios: sd 0.5 keeps 0.803 of the mean below 1, 0.974 below 2."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, generator=generator)

    for spread, below_one, below_two in ((0.5, 0.803, 0.974), (1.0, 0.617, 0.809)):
        log_rho = spread * normal - spread**2 / 2
        result = loss_of(
            log_rho, torch.zeros_like(log_rho), torch.arange(len(log_rho)),
            torch.ones_like(log_rho),
            Objective(token_veto=exp(100), apg=Apg(weight_limits_positive=(0.0, 2.0), kappa=inf)),
        )  # fmt: skip
        weights = result.verdicts.weight

        assert weights.mean().item() == pytest.approx(below_two, abs=4e-3)
        assert weights.clamp(max=1.0).mean().item() == pytest.approx(below_one, abs=4e-3)
