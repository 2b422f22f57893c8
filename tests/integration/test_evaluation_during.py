"""Held-out questions beside training, by the real learner and a scripted actor over real ZeroMQ."""

from dataclasses import replace
from pathlib import Path

import pytest

from common.wire.records import Purpose, TaskLease, Trajectory
from tests.integration.learner_life import Life, with_steps
from tests.integration.test_synchronous_training import TASKS, Play, scripted
from tests.tiny_policy import make_model

STEPS, EVERY = 6, 2
UNHURRIED = 5
"""Looks at a held-out question before it is answered."""


def a_life(folder: Path, play: Play, *, pinned: bool = False, every: int = EVERY) -> Life:
    make_model(folder / "model")
    return Life(
        folder=folder, model_folder=folder / "model", resume=False, heldout=TASKS[:2], play=play,
        config=with_steps(STEPS, during_every=every, pinned=pinned),
    )  # fmt: skip


def when_served(first: int, second: int) -> Play:
    """Answers one held-out question with version ``first`` and the other with ``second``."""

    def play(lease: TaskLease, version: int) -> Trajectory | None:
        if lease.purpose is not Purpose.EVALUATE:
            return scripted(lease, version)
        if version < (second if lease.sample_index else first):
            return None
        return replace(scripted(lease, version), purpose=lease.purpose)

    return play


def test_an_evaluation_holds_no_publish_and_is_written_when_it_is_complete(tmp_path: Path) -> None:
    life = a_life(tmp_path, when_served(EVERY, 5))

    assert life.run()

    assert len(life.servers.digests) == STEPS + 1
    (record,) = (record for record in life.records if record.heldout)
    assert record.step >= 5
    assert record.heldout_versions == {"oldest": EVERY, "newest": record.heldout_versions["newest"]}
    assert record.heldout_versions["newest"] >= 5
    assert life.asked == [EVERY], "version 4 was not asked, because it was under way"


def test_a_round_that_is_over_by_the_next_version_keeps_nobody_from_asking_that(
    tmp_path: Path,
) -> None:
    answered: set[str] = set()

    def questions_first(lease: TaskLease, version: int) -> Trajectory | None:
        if lease.purpose is Purpose.EVALUATE:
            answered.add(lease.lease_id)
        elif len(answered) < 2 * version:
            return None
        return replace(scripted(lease, version), purpose=lease.purpose)

    life = a_life(tmp_path, questions_first, every=1)

    assert life.run()

    assert life.asked == list(range(1, STEPS))
    scored = [record.heldout_versions for record in life.records if record.heldout]
    assert scored == [{"oldest": v, "newest": v} for v in range(1, STEPS)]


def test_the_end_of_a_run_waits_for_an_evaluation(tmp_path: Path) -> None:
    life = a_life(tmp_path, when_served(STEPS, STEPS))

    assert life.run()

    assert life.records[-1].heldout_versions == {"oldest": STEPS, "newest": STEPS}
    assert life.asked == [EVERY]


def test_a_last_evaluation_that_takes_too_long_is_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    life = a_life(tmp_path, when_served(EVERY, STEPS + 1))
    learner = replace(life.config.learner, batch_timeout_s=1.0)
    life.config = replace(life.config, learner=learner)

    assert life.run()

    assert "the last evaluation is left: learner: waited 1 s for the held-out" in caplog.text
    assert life.asked == []


def test_a_pinned_evaluation_is_of_one_version(tmp_path: Path) -> None:
    looks: dict[str, int] = {}

    def unhurried(lease: TaskLease, version: int) -> Trajectory | None:
        if lease.purpose is Purpose.EVALUATE:
            looks[lease.lease_id] = looks.get(lease.lease_id, 0) + 1
            if looks[lease.lease_id] < UNHURRIED:
                return None
        return replace(scripted(lease, version), purpose=lease.purpose)

    life = a_life(tmp_path, unhurried, pinned=True)

    assert life.run()

    versions = [record.heldout_versions for record in life.records if record.heldout]
    assert versions == [{"oldest": asked, "newest": asked} for asked in (2, 4)]
    assert life.asked == [2, 4]
