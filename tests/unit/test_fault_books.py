"""What the fault suite says of a run's books is true: it finds what is lost, doubled or too old."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from learner.coordination.changes import Accepted, Change, Granted, Taken, to_record
from learner.coordination.store import TrajectoryStore
from learner.journal.writer import JournalWriter
from tests.faults.books import check_books
from tests.faults.schedules import ANY, SHORT, WHOLE, schedule_of
from tests.faults.settings import BATCH, GROUPS, RESULT, SIZE, Settings, settings_of
from tests.makers import make_trajectory

STEPS = 2


def lease(step: int, number: int, attempt: int = 1) -> str:
    return f"g{step * GROUPS + number // SIZE:06d}-{number % SIZE}-{attempt}"


def granted(name: str) -> Granted:
    group, index, _ = name.split("-")
    return Granted(
        lease_id=name, group=int(group[1:]), sample_index=int(index), task_id="t", session="a0#s"
    )


def accepted(name: str, version: int) -> Accepted:
    made = make_trajectory(name, group_id=name.partition("-")[0], version=version)
    return Accepted(trajectory=made, num_bytes=1)


def changes() -> list[Change]:
    """Of a run in which nothing went wrong, in synchronous training."""
    made: list[Change] = []
    for step in range(STEPS):
        names = [lease(step, number) for number in range(BATCH)]
        made += [granted(name) for name in names]
        made += [accepted(name, step) for name in names]
        groups = tuple(dict.fromkeys(name.partition("-")[0] for name in names))
        made.append(Taken(version=step, groups=groups, trajectories=tuple(names)))
    return made


def settings() -> Settings:
    return dataclasses.replace(settings_of(schedule_of(0), Path("/")), bound=0, steps=STEPS)


def write(folder: Path, made: Sequence[Change], **counted: int) -> None:
    """A run folder with these changes."""
    with JournalWriter(folder / "journal") as journal:
        for change in made:
            journal.append(to_record(change))
    store = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 20)
    for change in made:
        if isinstance(change, Accepted):
            store.append(change.trajectory)
    store.close()
    taken = [change for change in made if isinstance(change, Taken)]
    rows = [{"step": t.version + 1, "trajectories": t.trajectories} for t in taken]
    (folder / "batches.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    begun = sum(isinstance(change, Granted) for change in made)
    result = {"started": begun, "trained": STEPS * BATCH, "dropped": {}, "duplicates": 0, **counted}
    (folder / RESULT).write_text(json.dumps(result))


def test_good_books_are_found_good(tmp_path: Path) -> None:
    write(tmp_path, changes())

    check_books(tmp_path, settings(), whole_journal=True)


def is_of(change: Change, kind: type, name: str = "") -> bool:
    own = getattr(change, "lease_id", "") or getattr(
        getattr(change, "trajectory", None), "trajectory_id", ""
    )
    return isinstance(change, kind) and (not name or own == name)


FIRST = lease(0, 0)


def without_the_first(made: list[Change]) -> list[Change]:
    return [change for change in made if not is_of(change, Accepted, FIRST)]


def twice_taken_in(made: list[Change]) -> list[Change]:
    return [*made[: BATCH + 1], accepted(FIRST, 0), *made[BATCH + 1 :]]


def handed_out_again_for_nothing(made: list[Change]) -> list[Change]:
    return [granted(FIRST), *made]


def trained_twice(made: list[Change]) -> list[Change]:
    first, last = (change for change in made if isinstance(change, Taken))
    return [*made[:-1], dataclasses.replace(last, trajectories=first.trajectories)]


def a_step_is_missing(made: list[Change]) -> list[Change]:
    return made[:-1]


def sampled_too_early(made: list[Change]) -> list[Change]:
    name = lease(1, 0)
    return [accepted(name, 0) if is_of(change, Accepted, name) else change for change in made]


def begun_too_early(made: list[Change]) -> list[Change]:
    name = lease(1, 0)
    return [granted(name), *(change for change in made if not is_of(change, Granted, name))]


def begun_and_forgotten(made: list[Change]) -> list[Change]:
    return [*made, granted(lease(2, 0))]


@pytest.mark.parametrize(
    ("spoilt", "what"),
    [
        (without_the_first, "without having been taken in"),
        (twice_taken_in, "taken in twice"),
        (handed_out_again_for_nothing, "handed out twice"),
        (trained_twice, "trained twice"),
        (a_step_is_missing, "a step is missing"),
        (sampled_too_early, "bound 0"),
        (begun_too_early, "begun, 4 allowed"),
    ],
)
def test_what_is_wrong_with_books_is_named(spoilt, what, tmp_path: Path) -> None:
    write(tmp_path, spoilt(changes()))

    with pytest.raises(AssertionError, match=what):
        check_books(tmp_path, settings(), whole_journal=True)


def test_a_lease_that_the_counters_forget_is_named(tmp_path: Path) -> None:
    write(tmp_path, begun_and_forgotten(changes()), started=STEPS * BATCH)

    with pytest.raises(AssertionError):
        check_books(tmp_path, settings(), whole_journal=True)


def test_an_actor_that_delivers_twice_is_seen_to(tmp_path: Path) -> None:
    write(tmp_path, changes())
    twice = dataclasses.replace(settings(), twice=True)

    with pytest.raises(AssertionError, match="nothing came twice"):
        check_books(tmp_path, twice, whole_journal=True)


def test_a_schedule_is_a_function_of_its_seed_and_the_first_ones_have_every_role() -> None:
    short = [schedule_of(seed) for seed in range(SHORT)]

    assert short == [schedule_of(seed) for seed in range(SHORT)]
    assert len(set(short)) == SHORT
    roles = {fault.role for schedule in short for fault in schedule.faults}
    assert roles == {role for role, _ in (*ANY, *WHOLE)}
