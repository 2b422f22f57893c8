"""Depth follows the learner's wait, under virtual time with the real coordinator."""

import random

import pytest

from learner.coordination.depth import Depth
from tests.simulated_learner import BOUND, GROUPS, SIZE, SimulatedRun, mean_of


def a_depth(*, max_staleness: int = BOUND, batches: float | None = None) -> Depth:
    depth = Depth(groups_per_batch=GROUPS, max_staleness=max_staleness, batches=batches)
    depth.took(0.0, spare=0)
    return depth


def test_a_learner_that_waits_while_actors_are_refused_gets_a_deeper_pipeline() -> None:
    depth = a_depth()
    before = depth.groups

    depth.hold_back(1.0, is_so=True)
    depth.wait(7.5)
    depth.took(10.0, spare=0)

    assert depth.groups == before + 2, "a quarter of the time, a quarter of a batch"


def test_what_was_refused_while_the_learner_trained_is_missing_when_it_waits() -> None:
    depth = a_depth()
    before = depth.groups

    depth.hold_back(1.0, is_so=True)
    depth.hold_back(4.0, is_so=False)
    depth.wait(5.0)
    depth.took(10.0, spare=0)

    assert depth.groups == before + 3, "3 s of the 5 s, of 10 s in all: 8 groups x 0.3"


def test_a_second_of_refusal_explains_one_second_of_waiting_and_only_so_long() -> None:
    depth = a_depth()
    depth.hold_back(1.0, is_so=True)
    depth.hold_back(9.0, is_so=False)
    depth.wait(9.0)
    depth.took(10.0, spare=0)
    explained = depth.groups
    for now in (20.0, 30.0, 40.0):
        depth.took(now, spare=0)
    depth.wait(42.0)
    depth.took(50.0, spare=0)

    assert depth.groups == explained, "what is waited for began after the refusals"


def test_a_wait_for_actors_that_are_busy_changes_nothing() -> None:
    depth = a_depth()
    before = depth.groups

    depth.hold_back(1.0, is_so=False)
    depth.wait(2.0)
    depth.took(10.0, spare=0)

    assert depth.groups == before


def test_what_lies_ready_in_every_batch_of_four_is_not_begun_any_more() -> None:
    depth = Depth(groups_per_batch=GROUPS, max_staleness=BOUND)
    depth.groups = 20
    for now, spare in enumerate((9, 8, 20, 8, 20)):
        depth.took(float(now), spare=spare)

    assert depth.groups == 20 - (8 - 3), "all but the margin"


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_depth_stays_between_one_batch_and_the_bound(bound: int) -> None:
    rng = random.Random(0)
    depth = a_depth(max_staleness=bound)
    for step in range(500):
        depth.hold_back(step + 0.1, is_so=rng.random() < 0.5)
        if rng.random() < 0.5:
            depth.wait(step + rng.uniform(0.2, 0.9))
        depth.took(step + 1.0, spare=rng.randrange(30))
        assert min(1, bound) <= depth.batches <= bound


def test_a_depth_that_is_given_stays() -> None:
    depth = a_depth(batches=1.5)
    depth.hold_back(1.0, is_so=True)
    depth.wait(1.0)
    depth.took(10.0, spare=0)

    assert depth.batches == 1.5


def test_sampling_that_is_fast_runs_just_ahead_of_the_learner() -> None:
    greatest = SimulatedRun(depth=a_depth(batches=BOUND), episode_s=lambda _: 1.0, spread=0.25)
    adapted = SimulatedRun(depth=a_depth(), episode_s=lambda _: 1.0, spread=0.25)
    greatest.play()
    adapted.play()

    assert greatest.staleness > 2.5
    assert adapted.staleness < 1.6
    assert greatest.now > 0.97 * adapted.now


def test_sampling_with_long_episodes_runs_deeper() -> None:
    run = SimulatedRun(depth=a_depth(), episode_s=lambda _: 4.0, credit=200).play()

    assert mean_of(run.depths, since=10) > 2


def test_sampling_as_fast_as_training_keeps_both_at_work() -> None:
    episode_s = 3.0 * 12 / (GROUPS * SIZE)
    greatest = SimulatedRun(depth=a_depth(batches=BOUND), episode_s=lambda _: episode_s, steps=80)
    adapted = SimulatedRun(depth=a_depth(), episode_s=lambda _: episode_s, steps=80)
    greatest.play()
    adapted.play()

    assert adapted.now < 1.05 * greatest.now
    assert adapted.staleness < greatest.staleness - 0.2
