"""Chaos kills nobody that still recovers, and tells by a run's records who works again."""

import itertools
import json
import random
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import Pair, figures_of, lost_points
from benchmarks.chaos.records import has_trained, heldout_success, is_trained, progress_of
from benchmarks.chaos.turns import Kill, Progress, Recovery, Turns

ROLES = ("actor", "kernels", "server", "engine", "learner", "starter")


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_killed_before_it_works_again(seed: int) -> None:
    chance, now = random.Random(seed), 0.0
    turns = Turns(seed=seed, every_s=30, began=now)
    step, begun_at = 1, 0.0
    for _ in range(600):
        now += chance.uniform(0, 20)
        step += chance.random() < 0.3
        begun_at = now if chance.random() < 0.3 else begun_at
        before = turns.recovering
        back = {r.role for r in turns.look(Progress(step=step, begun_at=begun_at), now=now)}
        assert turns.recovering == before - back
        there = [role for role in ROLES if chance.random() < 0.7]
        role = turns.next(there, now=now)
        if role is not None:
            assert role in there
            assert role not in turns.recovering
            assert "starter" not in turns.recovering
            assert role != "engine" or "server" not in turns.recovering
            assert role != "kernels" or "actor" not in turns.recovering
            turns.killed(Kill(role=role, at=now, step=step))
    times = [kill.at for kill in turns.kills]
    assert len(times) > 10
    assert min(later - one for one, later in itertools.pairwise(times)) >= 30
    assert {kill.role for kill in turns.kills} == set(ROLES)
    assert len(turns.recoveries) + len(turns.recovering) == len(turns.kills)


@pytest.mark.parametrize(
    ("role", "progress", "works"),
    [
        ("learner", Progress(step=3, begun_at=99), False),
        ("learner", Progress(step=4, begun_at=0), True),
        ("starter", Progress(step=2, begun_at=99), False),
        ("actor", Progress(step=9, begun_at=10), False),
        ("server", Progress(step=3, begun_at=11), True),
    ],
)
def test_who_works_again_is_told_by_steps_or_by_episodes_begun_since(
    role: str, progress: Progress, works: bool
) -> None:
    turns = Turns(seed=0, every_s=1, began=0)
    turns.killed(Kill(role=role, at=10, step=3))

    found = turns.look(progress, now=15)

    assert found == ([Recovery(role, 5)] if works else [])
    assert turns.recovering == (frozenset() if works else {role})


def test_progress_is_read_from_files_that_are_being_written(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == Progress(step=0, begun_at=0.0)
    (tmp_path / "trajectories").mkdir()
    lines = [json.dumps({"started_at": float(at)}) for at in (5, 9, 7)]
    (tmp_path / "trajectories" / "part-00000.jsonl").write_text("\n".join(lines) + '\n{"star')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')

    assert progress_of(tmp_path) == Progress(step=2, begun_at=9.0)
    assert not is_trained(tmp_path)


def test_the_end_of_a_large_file_is_read_from_its_first_whole_line(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "filler": "x" * 1000}) for step in range(1, 1001)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    assert progress_of(tmp_path).step == 1000


def test_an_earlier_run_of_the_same_name_is_not_taken_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    state = {"status": "finished", "started_at": 100.0}
    (tmp_path / "state.json").write_text(json.dumps(state))

    assert not has_trained(tmp_path, since=101.0)
    assert has_trained(tmp_path, since=99.0)


def pair(seed: int, undisturbed: float, disturbed: float, *recoveries: Recovery) -> Pair:
    return Pair(
        seed=seed, undisturbed=undisturbed, disturbed=disturbed, seconds=(10.0, 20.0),
        kills=len(recoveries), restarts=1, recoveries=recoveries,
    )  # fmt: skip


def test_what_the_kills_cost_is_the_mean_over_seeds() -> None:
    pairs = [
        pair(1, 97.0, 96.0, Recovery("actor", 2.0), Recovery("actor", 4.0)),
        pair(2, 96.0, 98.0, Recovery("learner", 9.0)),
    ]

    figures = figures_of(pairs)

    assert lost_points(pairs) == figures["lost_points"] == -0.5
    assert (figures["kills"], figures["recoveries"]) == (3, 3)
    assert (figures["actor_s_p50"], figures["actor_s_max"], figures["actor_kills"]) == (3.0, 4.0, 2)


def test_held_out_success_is_the_mean_over_families(tmp_path: Path) -> None:
    heldout = {"one": {"n": 4, "before": 0.0, "after": 0.5}, "two": {"n": 4, "after": 1.0}}
    (tmp_path / "summary.json").write_text(json.dumps({"heldout": heldout, "restarts": []}))

    assert heldout_success(tmp_path) == 0.75
