"""When a checkpoint is due, and which stay: by tables, and by what must hold whatever happens."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.checkpoints.job import FinishJob, Job, job_from_line
from learner.checkpoints.retention import Keep, kept
from learner.checkpoints.schedule import RETRY_S, SaveSchedule
from learner.checkpoints.scores import HeldOutScores


@pytest.mark.parametrize(
    ("steps", "keep", "stay"),
    [
        ([1, 2, 3], Keep(newest=2), {2, 3}),
        ([3, 1, 2], Keep(newest=0), {3}),
        ([], Keep(newest=2), set()),
        ([10, 20, 30, 40], Keep(newest=1, every=20), {20, 40}),
        ([7, 19, 23, 31, 44], Keep(newest=1, every=20), {23, 44}),
        ([0, 5], Keep(newest=1, every=20), {5}),
        ([1, 2, 3], Keep(newest=1, scores={1: 0.5, 2: 0.25}), {1, 3}),
        ([1, 2, 3], Keep(newest=1, scores={1: 0.5, 2: 0.5}), {2, 3}),
        ([2, 3], Keep(newest=1, scores={1: 0.9, 2: 0.1}), {2, 3}),
        ([1, 2, 3, 4], Keep(newest=1, every=2, scores={1: 0.9}), {1, 2, 4}),
    ],
)
def test_what_stays(steps: list[int], keep: Keep, stay: set[int]) -> None:
    assert kept(steps, keep) == stay


@given(
    st.sets(st.integers(0, 200), max_size=40),
    st.integers(0, 5),
    st.integers(0, 50),
    st.dictionaries(st.integers(0, 200), st.floats(0, 1)),
)
def test_after_every_save_what_a_resume_needs_and_what_was_promised_is_there(
    steps: set[int], newest: int, every: int, scores: dict[int, float]
) -> None:
    keep = Keep(newest=newest, every=every, scores=scores)
    there: frozenset[int] = frozenset()
    for number, step in enumerate(sorted(steps), start=1):
        there = kept({*there, step}, keep)

        assert set(sorted(steps)[max(0, number - max(1, newest)) : number]) <= there
    turns = {step // every for step in steps} - {0} if every else set()
    assert turns <= {step // every for step in there if every}
    if best := max((scores[step] for step in steps if step in scores), default=None):
        assert best == max(scores[step] for step in there if step in scores)
    assert len(there) <= max(1, newest) + len(turns) + 1


@pytest.mark.parametrize(
    ("minutes", "step", "now", "due"),
    [
        (0, 10, 0, True),
        (0, 20, 0, True),
        (0, 11, 1e9, False),
        (2, 11, 119, False),
        (2, 11, 120, True),
        (2, 10, 1, True),
    ],
)
def test_a_save_is_due_by_steps_or_by_minutes(
    minutes: float, step: int, now: float, due: bool
) -> None:
    assert SaveSchedule(steps=10, minutes=minutes, now=0).is_due(step, now) is due


def test_minutes_count_from_the_save_before() -> None:
    schedule = SaveSchedule(steps=10, minutes=2, now=0)
    schedule.begun(100)

    assert not schedule.is_due(11, 219)
    assert schedule.is_due(11, 220)


def test_a_save_that_failed_is_tried_again_soon_but_not_at_once() -> None:
    schedule = SaveSchedule(steps=1000, minutes=0, now=0)
    schedule.begun(50)
    schedule.failed(60)

    assert not schedule.is_due(1, 60)
    assert schedule.is_due(2, 60 + RETRY_S)


def test_scores_are_there_again_after_a_restart_and_nonsense_is_not(tmp_path: Path) -> None:
    HeldOutScores(tmp_path).add(20, 0.5)
    HeldOutScores(tmp_path).add(30, 0.25)

    assert HeldOutScores(tmp_path).by_step == {20: 0.5, 30: 0.25}
    (tmp_path / "scores.json").write_text('{"x": 1, "4": "y", "5": 0.75}')
    assert HeldOutScores(tmp_path).by_step == {5: 0.75}
    (tmp_path / "scores.json").write_text("[")
    assert HeldOutScores(tmp_path).by_step == {}


def test_a_writer_is_told_what_stays_as_it_was_said() -> None:
    finish = FinishJob(
        final="f", keep=Keep(newest=1, every=5, scores={20: 0.5}), description="", ledger_bytes=0,
        model_source="m", export_format="F32",
    )  # fmt: skip
    job = Job(partial="p", rank=0, ranks=1, header="", data_bytes=0, finish=finish)

    assert job_from_line(job.as_line()) == job
