"""The trajectory store keeps the newest lines within its limit, and never rewrites one."""

import json
from pathlib import Path

from learner.coordination.store import TrajectoryStore
from tests.makers import make_trajectory


def append(folder: Path, *names: str, limit_bytes: int = 1 << 20) -> None:
    store = TrajectoryStore(folder, limit_bytes=limit_bytes, parts=4)
    for name in names:
        store.append(make_trajectory(name))
    store.close()


def names(folder: Path) -> list[str]:
    lines = [line for part in sorted(folder.iterdir()) for line in part.read_text().splitlines()]
    return [json.loads(line)["trajectory_id"] for line in lines]


def test_the_oldest_lines_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    written = [f"t{number:03d}" for number in range(200)]

    append(tmp_path, *written, limit_bytes=40_000)

    kept = names(tmp_path)
    line = len(next(tmp_path.iterdir()).read_bytes().splitlines()[0])
    assert 0 < len(kept) < 200
    assert kept == written[-len(kept) :]
    assert sum(part.stat().st_size for part in tmp_path.iterdir()) < 40_000 + 4 * (line + 1)


def test_another_attempt_goes_on_in_a_part_of_its_own(tmp_path: Path) -> None:
    append(tmp_path, "a", "b")
    (first,) = tmp_path.iterdir()
    before = first.read_bytes()

    append(tmp_path, "c")

    assert first.read_bytes() == before
    assert names(tmp_path) == ["a", "b", "c"]
