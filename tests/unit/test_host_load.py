"""A policy server counts what lost its place for want of cache, what it sampled, and its time."""

from actors.inference.host.load import LoadMeter
from common.wire.hosting import ServerLoad


def a_meter(*, running: int, waiting: int = 0) -> LoadMeter:
    meter = LoadMeter()
    meter.scheduled(running=running, waiting=waiting, cache_share=0.5, now=0.0)
    return meter


def test_sequences_that_a_pause_put_back_are_no_preemptions() -> None:
    meter = a_meter(running=8, waiting=2)
    meter.paused(now=0.0)
    for running in (3, 6, 8):
        meter.went_on(3 if running < 8 else 2)
        meter.scheduled(running=running, waiting=10 - running, cache_share=0.5, now=0.0)

    assert meter.load == ServerLoad(running=8, waiting=2, cache_share=0.5, preemptions=0)


def test_what_loses_its_place_after_the_others_went_on_counts() -> None:
    meter = a_meter(running=8)
    meter.paused(now=0.0)
    meter.went_on(8)
    meter.went_on(3)

    assert meter.load.preemptions == 3


def test_what_a_pause_put_back_does_not_wait_for_want_of_a_place() -> None:
    meter = a_meter(running=8, waiting=2)
    meter.paused(now=0.0)
    meter.scheduled(running=2, waiting=8, cache_share=0.1, now=0.0)

    assert meter.load.waiting == 0

    meter.went_on(8)
    meter.scheduled(running=8, waiting=2, cache_share=0.5, now=0.0)

    assert meter.load.waiting == 2


def test_of_what_was_given_up_after_a_pause_nothing_is_kept() -> None:
    meter = a_meter(running=8)
    meter.paused(now=0.0)
    meter.scheduled(running=0, waiting=0, cache_share=0.0, now=0.0)
    meter.scheduled(running=4, waiting=0, cache_share=0.5, now=0.0)
    meter.went_on(2)

    assert meter.load.preemptions == 2


def test_time_at_work_is_that_with_requests_and_no_pause() -> None:
    meter = LoadMeter()
    meter.asked(now=10.0)
    meter.scheduled(running=1, waiting=0, cache_share=0.5, now=11.0)
    assert meter.load.busy_s == 1
    meter.asked(now=12.0)
    meter.paused(now=13.0)
    meter.scheduled(running=0, waiting=2, cache_share=0.5, now=14.0)
    meter.answered(now=15.0)
    meter.resumed(now=20.0)
    meter.answered(now=22.0)
    meter.scheduled(running=0, waiting=0, cache_share=0.0, now=40.0)
    meter.asked(now=50.0)
    meter.answered(now=50.5)

    assert meter.load.busy_s == 3 + 2 + 0.5


def test_what_was_sampled_is_counted_whatever_is_computed_again() -> None:
    meter = a_meter(running=8)
    meter.sampled(8)
    meter.paused(now=0.0)
    meter.went_on(8)
    meter.sampled(5)

    assert meter.load.sampled == 13
