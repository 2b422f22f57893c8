"""Nothing lost, nothing doubled, the bound never passed: read from a run's folder and journal."""

import json
from collections import Counter
from pathlib import Path

from learner.coordination.changes import (
    Accepted,
    Change,
    Closed,
    Ended,
    Granted,
    Restarted,
    Stale,
    Taken,
    from_record,
)
from learner.journal.segments import read_place, recover
from tests.faults.settings import BATCH, RESULT, Settings


def check_books(folder: Path, settings: Settings, *, whole_journal: bool) -> None:
    """Of a run that is over.

    ``whole_journal`` is False where the disk had no room for some of it: then what it misses is
    sampled again, and only what was trained at last is checked.
    """
    trained = _batches(folder)
    assert list(trained) == list(range(1, settings.steps + 1)), "a step is missing, or twice"
    names = [name for batch in trained.values() for name in batch]
    assert len(names) == settings.steps * BATCH, "a batch is short"
    assert _most(map(_member, names)) == 1, "a member was trained twice"
    counted = json.loads((folder / RESULT).read_text())
    dropped = sum(counted["dropped"].values())
    open_ = counted["started"] - counted["trained"] - dropped
    assert counted["trained"] == len(names)
    assert open_ >= 0, f"more ended than was begun: {counted}"
    assert counted["duplicates"] or not settings.twice, "nothing came twice"
    _check_bound_by_store(folder, trained, settings.bound)
    if whole_journal:
        changes = _changes(folder)
        _check_journal(changes, trained, settings)
        begun, without_end = _leases(changes)
        assert counted["started"] == begun
        assert open_ == without_end, f"{without_end} leases without an end, {counted}"


def _check_journal(
    changes: list[Change], trained: dict[int, list[str]], settings: Settings
) -> None:
    accepted = [c.trajectory.trajectory_id for c in changes if isinstance(c, Accepted)]
    taken = [c for c in changes if isinstance(c, Taken)]
    assert _most(accepted) == 1, "a trajectory was taken in twice"
    assert _most(map(_member, accepted)) == 1, "a member was taken in twice"
    assert [batch.version for batch in taken] == list(range(settings.steps))
    for batch in taken:
        assert list(batch.trajectories) == trained[batch.version + 1]
        assert set(batch.trajectories) <= set(accepted), "trained without having been taken in"
    _check_admission(changes, settings.bound)


def _leases(changes: list[Change]) -> tuple[int, int]:
    """How many were begun, and how many of them have no end; none has two."""
    begun: set[str] = set()
    ended: Counter[str] = Counter()
    for change in changes:
        if isinstance(change, Granted):
            assert change.lease_id not in begun, f"{change.lease_id} was handed out twice"
            begun.add(change.lease_id)
        elif isinstance(change, Accepted):
            ended[change.trajectory.trajectory_id] += 1
        elif isinstance(change, Ended):
            ended[change.lease_id] += 1
        elif isinstance(change, Restarted):
            ended.update(change.lost)
    assert set(ended) <= begun
    assert _most(ended.elements()) <= 1, "a lease ended twice"
    return len(begun), len(begun) - len(ended)


def _check_admission(changes: list[Change], bound: int) -> None:
    """At no moment more was begun than the bound allows beyond what the learner had taken.

    The version that the servers have is at most the number of batches taken, so that ``bound + 1``
    batches may be begun beyond those.
    """
    places: set[str] = set()
    batches = 0
    for change in changes:
        if isinstance(change, Granted):
            places.add(_member(change.lease_id))
        elif isinstance(change, Taken):
            batches += 1
            places -= set(map(_member, change.trajectories))
        elif isinstance(change, Stale):
            places -= set(map(_member, change.trajectories))
        elif isinstance(change, Closed):
            places -= set(map(_member, change.late))
            if change.dropped_as:
                places = {name for name in places if name.rpartition("-")[0] != change.group_id}
        limit = (bound + 1) * BATCH
        assert len(places) <= limit, f"{len(places)} begun, {limit} allowed, at batch {batches}"


def _check_bound_by_store(folder: Path, trained: dict[int, list[str]], bound: int) -> None:
    """No action that a batch was trained on was sampled by weights older than the bound allows."""
    oldest = {line["trajectory_id"]: line["oldest_version"] for line in stored(folder)}
    for step, batch in trained.items():
        ages = [step - 1 - oldest[name] for name in batch if name in oldest]
        assert max(ages, default=0) <= bound, f"step {step}: ages {ages}, bound {bound}"


def stored(folder: Path, *, last: int = 0) -> list[dict]:
    """The lines of the store that are whole; the ``last`` ones alone, where a number is given."""
    lines = []
    for part in sorted((folder / "trajectories").glob("part-*.jsonl")):
        lines += part.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [json.loads(line) for line in lines[-last:] if line.endswith("}\n")]


def steps_of(folder: Path) -> int:
    """Steps that have been trained so far."""
    file = folder / "batches.jsonl"
    return len(file.read_bytes().splitlines()) if file.exists() else 0


def _batches(folder: Path) -> dict[int, list[str]]:
    rows = [json.loads(line) for line in (folder / "batches.jsonl").read_text().splitlines()]
    found = {row["step"]: row["trajectories"] for row in rows}
    assert len(found) == len(rows), "a step was trained twice"
    return found


def _changes(folder: Path) -> list[Change]:
    return [from_record(read_place(p)) for p in recover(folder / "journal", since=0).places]


def _member(lease_id: str) -> str:
    """Group and sample, without the attempt."""
    return lease_id.rpartition("-")[0]


def _most(names) -> int:
    return max(Counter(names).values(), default=0)
