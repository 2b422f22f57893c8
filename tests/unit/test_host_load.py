"""A policy server counts as preempted what lost its place for want of cache, and nothing else."""

from actors.inference.host.load import LoadMeter
from common.wire.hosting import ServerLoad


def a_meter(*, running: int, waiting: int = 0) -> LoadMeter:
    meter = LoadMeter()
    meter.scheduled(running=running, waiting=waiting, cache_share=0.5)
    return meter


def test_sequences_that_a_pause_put_back_are_no_preemptions() -> None:
    meter = a_meter(running=8, waiting=2)
    meter.paused()
    for running in (3, 6, 8):
        meter.went_on(3 if running < 8 else 2)
        meter.scheduled(running=running, waiting=10 - running, cache_share=0.5)

    assert meter.load == ServerLoad(running=8, waiting=2, cache_share=0.5, preemptions=0)


def test_what_loses_its_place_after_the_others_went_on_counts() -> None:
    meter = a_meter(running=8)
    meter.paused()
    meter.went_on(8)
    meter.went_on(3)

    assert meter.load.preemptions == 3


def test_what_a_pause_put_back_does_not_wait_for_want_of_a_place() -> None:
    meter = a_meter(running=8, waiting=2)
    meter.paused()
    meter.scheduled(running=2, waiting=8, cache_share=0.1)

    assert meter.load.waiting == 0

    meter.went_on(8)
    meter.scheduled(running=8, waiting=2, cache_share=0.5)

    assert meter.load.waiting == 2


def test_of_what_was_given_up_after_a_pause_nothing_is_kept() -> None:
    meter = a_meter(running=8)
    meter.paused()
    meter.scheduled(running=0, waiting=0, cache_share=0.0)
    meter.scheduled(running=4, waiting=0, cache_share=0.5)
    meter.went_on(2)

    assert meter.load.preemptions == 2
