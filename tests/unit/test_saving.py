"""Ranks agree on saving and stopping; a save that fails is said and tried again."""

import time
from collections.abc import Iterator

import pytest

from common.errors import MachineError
from common.stopping import StopRequest
from learner.checkpoints.schedule import RETRY_S, SaveSchedule
from learner.checkpoints.state import Progress
from learner.engine.mesh import training_processes
from learner.saving import Agreed, Saving

FULL = "checkpoint 'c' could not be written, those before it are kept: No space left on device"


class Disk:
    """Keeps steps, or fails with what is put into ``fault``; a save is under way until then."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.fault = ""
        self.busy = False
        self.begun: list[int] = []

    def save(self, progress: Progress) -> None:
        self.begun.append(progress.step)

    def is_busy(self) -> bool:
        return self.busy

    def finish(self) -> None:
        begun, self.begun = self.begun, []
        if begun and self.fault:
            raise MachineError(self.fault)
        self.kept += begun


@pytest.fixture(autouse=True)
def _ranks() -> Iterator[None]:
    with training_processes():
        yield


def saving(disk: Disk, told: list[str], stop: StopRequest | None = None) -> Saving:
    schedule = SaveSchedule(steps=2, minutes=0, now=0)
    return Saving(saver=disk, schedule=schedule, stop=stop or StopRequest(), tell=told.append)


def at(step: int) -> Progress:
    return Progress(step=step, weight_version=step, ledger=b"")


def test_a_full_disk_is_said_once_per_save_and_the_next_save_is_tried() -> None:
    disk, told = Disk(), list[str]()
    learner = saving(disk, told)

    disk.fault = FULL
    learner.save(at(2))
    assert learner.agree(3, last=False) == Agreed(save=False, stop=False)
    assert [text.startswith(FULL + "; training goes on") for text in told] == [True]
    disk.fault = ""
    assert learner.agree(4, last=False).save
    learner.save(at(4))
    learner.agree(5, last=False)

    assert disk.kept == [4]
    assert len(told) == learner.failed.count == 1
    assert learner.failed.last == FULL


def test_minutes_count_from_a_save_and_a_failed_one_is_tried_again_before_they_are_over() -> None:
    disk, began = Disk(), time.monotonic()
    schedule = SaveSchedule(steps=1000, minutes=60, now=began - 3600)
    learner = Saving(saver=disk, schedule=schedule)

    assert learner.agree(1, last=False).save
    disk.fault = FULL
    learner.save(at(1))
    assert not schedule.is_due(2, began + 2 * RETRY_S)
    assert not learner.agree(2, last=False).save
    assert schedule.is_due(3, began + 2 * RETRY_S)


def test_nothing_waits_for_a_save_that_is_still_written() -> None:
    disk = Disk()
    learner = saving(disk, [])
    learner.save(at(2))
    disk.busy = True

    learner.agree(3, last=False)
    assert disk.kept == []
    disk.busy = False
    learner.agree(4, last=False)
    assert disk.kept == [2]


def test_the_last_step_is_saved_and_a_signal_stops() -> None:
    stop = StopRequest()
    learner = saving(Disk(), [], stop)

    assert learner.agree(5, last=True) == Agreed(save=True, stop=False)
    stop.note()
    assert learner.agree(5, last=False) == Agreed(save=False, stop=True)
    assert learner.all_stop(here=True)
    assert not learner.all_stop(here=False)
