"""The benchmark of asynchronous training draws what it says, and compares what it says."""

from dataclasses import replace
from math import exp
from statistics import fmean, quantiles

import pytest

from benchmarks.asynchrony.quickstart import QuickstartRun, compare_quickstarts
from benchmarks.asynchrony.sweep import QUICK, Cell, Sweep
from benchmarks.asynchrony.training import Measured, Span, TakenBatch, measured
from benchmarks.asynchrony.virtual import train_virtually
from benchmarks.asynchrony.workload import (
    MEAN,
    SIGMA,
    TAIL,
    Workload,
    ceiling_s,
    read_workload,
    scheduled_s,
    written,
)
from benchmarks.bench_async import compare

WORK = Workload(
    slots=4, groups=2, group_size=4, median_s=1.0, train_over_generation=0.5, max_staleness=3,
    batches=3, counted_from=0,
)  # fmt: skip
SWEEP = Sweep(slots=32, warm_medians=20.0, counted_medians=30.0, synchronous_trajectories=64)


def drawn(number: int) -> list[float]:
    return [WORK.episode_s(f"g{index:06d}", index % 8) for index in range(number)]


def test_episode_times_have_the_quantiles_and_the_mean_that_are_said() -> None:
    cuts = quantiles(drawn(40_000), n=100)

    assert cuts[49] == pytest.approx(1.0, rel=0.03)
    assert cuts[98] == pytest.approx(TAIL, rel=0.1)
    assert fmean(drawn(40_000)) == pytest.approx(MEAN, rel=0.03)
    assert pytest.approx(exp(SIGMA**2 / 2)) == MEAN


def test_a_member_takes_the_same_time_whoever_tries_it_and_another_seed_gives_others() -> None:
    again = read_workload(written(WORK))

    assert again == WORK
    assert again.episode_s("g000001", 2) == WORK.episode_s("g000001", 2)
    assert replace(WORK, seed=1).episode_s("g000001", 2) != WORK.episode_s("g000001", 2)


def test_episodes_begin_in_order_as_slots_become_free() -> None:
    assert scheduled_s([3.0, 1.0, 1.0, 4.0], 2) == 6.0, "the last begins when the third has ended"
    assert scheduled_s([3.0, 1.0], 8) == 3.0


def test_the_ceiling_is_that_of_the_slower_side() -> None:
    generated = [[8.0] * 8, [8.0] * 8]

    assert ceiling_s(generated, WORK) == 32.0
    slow = replace(WORK, train_over_generation=20.0)
    assert ceiling_s(generated, slow) == pytest.approx(2 * slow.train_s)


@pytest.mark.parametrize("batch_over_slots", [0.5, 1.0, 4.0])
def test_bound_0_takes_exactly_what_the_closed_form_says(batch_over_slots: float) -> None:
    work = SWEEP.synchronous(1.0, batch_over_slots)

    found = train_virtually(work)

    assert found.seconds == pytest.approx(found.closed_form_s, rel=1e-9)
    assert (found.staleness_max, found.dropped) == (0, 0)


@pytest.mark.parametrize("train_over_generation", [0.1, 1.0, 1.1, 2.0])
def test_but_for_what_our_code_costs_the_slower_side_is_at_work(
    train_over_generation: float,
) -> None:
    found = train_virtually(SWEEP.asynchronous(train_over_generation, 2.0))

    assert min(found.slots_idle, found.learner_idle) < 0.05
    assert found.dropped == 0


def a_batch(at: float, waited_s: float) -> TakenBatch:
    times = (2.0,) * 8
    return TakenBatch(
        at=at, waited_s=waited_s, episodes_s=times, staleness=1.0, staleness_max=2, depth=1.0
    )


def test_only_what_lies_between_the_first_counted_batch_and_the_last_is_counted() -> None:
    taken = [a_batch(0.0, 9.0), a_batch(10.0, 9.0), a_batch(15.0, 1.0), a_batch(20.0, 2.0)]
    at_work = [Span(0.0, 12.0), Span(18.0, 40.0), Span(11.0, 14.0)]

    found = measured(replace(WORK, counted_from=1), taken, at_work, dropped=0, cpu_s=0.0)

    assert (found.seconds, found.batches) == (10.0, 2)
    assert found.learner_idle == pytest.approx(0.3)
    assert found.slots_idle == pytest.approx(1 - 7.0 / 40.0)
    assert found.ceiling_s == 8.0
    assert found.share_of_ceiling == pytest.approx(0.8)


def side(seconds: float, idle: float) -> Measured:
    return Measured(
        workload=WORK, seconds=seconds, batches=10, learner_idle=idle, slots_idle=0.1,
        ceiling_s=9.0, closed_form_s=40.0, staleness=1.0, staleness_max=2, depth=1.0, dropped=0,
        cpu_s=1.0,
    )  # fmt: skip


def test_ratios_are_the_largest_gain_and_the_smallest_share_and_idle_shares_of_even_cells() -> None:
    def cell(train: float, ahead: Measured, still: Measured) -> Cell:
        return Cell(
            train_over_generation=train,
            batch_over_slots=1.0,
            ahead=ahead,
            synchronous=still,
            virtual=side(9.0, 0.0),
        )

    figures, ratios = compare(
        [
            cell(0.5, side(10.0, 0.5), side(40.0, 0.9)),
            cell(1.0, side(12.0, 0.1), side(36.0, 0.7)),
        ]
    )

    assert ratios == {"async_vs_sync": 4.0, "share_of_ceiling": 0.75}
    assert (figures["learner_idle_async"], figures["learner_idle_sync"]) == (0.1, 0.7)
    assert figures["sync_vs_closed_form_least"] == pytest.approx(0.9)
    assert figures["train_1/batch_1/async_vs_sync"] == 3.0


@pytest.mark.parametrize("sweep", [Sweep(), QUICK])
def test_every_training_of_a_sweep_is_warm_before_it_is_counted(sweep: Sweep) -> None:
    assert 1.0 in sweep.train_over_generation
    for cell in sweep.cells:
        ahead, still = sweep.asynchronous(*cell), sweep.synchronous(*cell)
        assert still.max_staleness == 0 < ahead.max_staleness
        assert ahead.batch == still.batch == sweep.slots * cell[1]
        warm_s = ahead.counted_from * max(ahead.generation_s, ahead.train_s)
        assert warm_s >= sweep.warm_medians * sweep.median_s
        for work in (ahead, still):
            assert work.batches - 1 - work.counted_from >= sweep.least_batches


def test_quickstarts_are_compared_at_equal_trajectories_by_the_worst_family() -> None:
    def runs(seconds: list[float], one: float, two: float) -> list[QuickstartRun]:
        return [
            QuickstartRun(
                trajectories=100, seconds=s, learner_idle=0.1, staleness=1.0,
                success={"one": one, "two": two},
            )
            for s in seconds
        ]  # fmt: skip

    figures, ratios = compare_quickstarts(
        {"sync": runs([20.0, 40.0, 50.0], 0.9, 0.8), "async": runs([10.0, 20.0, 90.0], 0.95, 0.79)}
    )

    assert ratios == {"quickstart_async_vs_sync": pytest.approx(2.0)}
    assert figures["quickstart/heldout_points"] == pytest.approx(-1.0)
    assert figures["quickstart/async/heldout/two"] == pytest.approx(0.79)
