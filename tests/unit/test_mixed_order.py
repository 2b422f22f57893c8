"""Training draws from several sources in a ratio, and goes on with the same sequence."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.config import Config
from common.config_file import config_from_tables
from common.errors import ConfigError, InputError
from common.tasks import read_sources, read_tasks, write_tasks
from common.wire.records import Task
from launch.run.config_pairs import check_pairs
from launch.run.inputs import input_digests
from launch.run.preflight import check_task_files
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import Order, TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger
from learner.coordination.mixed_order import MixedOrder, WeightedTasks, order_of_families

WEIGHTS = st.lists(st.floats(0.01, 100), min_size=1, max_size=8)


def tasks(name: str, count: int) -> list[Task]:
    return [Task(task_id=f"{name}-{n}", question="?", answers=("yes",)) for n in range(count)]


def mixed(weights: list[float], *, seed: int = 0) -> MixedOrder:
    sources = [
        WeightedTasks(f"s{place}", tasks(f"s{place}", place + 2), weight)
        for place, weight in enumerate(weights)
    ]
    return MixedOrder(sources, seed=seed)


def coordinator(order: Order) -> Coordinator:
    return Coordinator(
        order, groups_per_batch=2, group_size=2, max_staleness=1, total_batches=9,
        max_buffered_bytes=1 << 20,
    )  # fmt: skip


def test_every_family_of_a_file_has_its_part_in_every_batch() -> None:
    every = [
        Task(task_id=f"{family}-{n}", question="?", answers=("yes",), labels={"family": family})
        for family, count in (("one_hop", 30), ("two_hop", 20))
        for n in range(count)
    ]
    order = order_of_families(every, seed=3)

    epoch = [order.next() for _ in every]

    assert sorted(task.task_id for task in epoch) == sorted(task.task_id for task in every)
    for start in range(0, len(epoch), 8):
        batch = epoch[start : start + 8]
        ones = sum(task.labels["family"] == "one_hop" for task in batch)
        assert abs(ones - 0.6 * len(batch)) < 2


def test_a_file_without_families_is_in_the_order_of_its_seed_alone() -> None:
    every = tasks("q", 9)
    plain = TaskOrder(every, seed=3)

    order = order_of_families(every, seed=3)

    assert [order.next() for _ in range(20)] == [plain.next() for _ in range(20)]


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, st.integers(1, 60))
def test_after_any_number_of_draws_each_share_is_within_one_of_the_ratio(
    weights: list[float], draws: int
) -> None:
    order = mixed(weights)
    total = sum(map(Fraction, weights))

    for drawn in range(1, draws + 1):
        order.next()
        for place, weight in enumerate(weights):
            exact = drawn * Fraction(weight) / total
            assert abs(order.cursors[f"s{place}"] - exact) < 1


@settings(max_examples=15, deadline=None)
@given(WEIGHTS, st.integers(0, 3), st.integers(0, 60))
def test_an_order_that_goes_on_from_cursors_gives_the_same_sequence(
    weights: list[float], seed: int, done: int
) -> None:
    order, resumed = mixed(weights, seed=seed), mixed(weights, seed=seed)
    for _ in range(done):
        order.next()

    resumed.go_to(order.cursors)

    assert [resumed.next() for _ in range(30)] == [order.next() for _ in range(30)]


def test_within_a_source_every_epoch_has_each_task_once() -> None:
    order = mixed([2, 1])

    seen = Counter(order.next().task_id for _ in range(36))

    assert seen == {"s0-0": 12, "s0-1": 12, "s1-0": 4, "s1-1": 4, "s1-2": 4}


def test_another_seed_gives_another_order() -> None:
    first, second = (MixedOrder([WeightedTasks("a", tasks("a", 50), 1)], seed=s) for s in (0, 1))

    assert [first.next() for _ in range(50)] != [second.next() for _ in range(50)]


def test_the_ledger_keeps_the_cursor_of_each_source_and_open_groups() -> None:
    state = coordinator(mixed([3, 1]))
    opened = [state.groups.open().task for _ in range(5)]

    restored = coordinator(mixed([3, 1]))
    restore_ledger(restored, save_ledger(state))

    assert restored.groups.order.cursors == state.groups.order.cursors == {"s0": 4, "s1": 1}
    assert [g.task for g in restored.groups.open_groups.values()] == opened
    assert restored.groups.open().task == state.groups.open().task


def test_a_ledger_of_other_sources_is_refused() -> None:
    ledger = save_ledger(coordinator(mixed([3, 1])))

    with pytest.raises(InputError, match=r"with tasks of s0, s1, and there are those of tasks.tr"):
        restore_ledger(coordinator(TaskOrder(tasks("a", 3), seed=0)), ledger)


def config(folder: Path, **more: object) -> Config:
    for name in ("a", "b"):
        write_tasks(tasks(name, 3), folder / f"{name}.jsonl")
    sources = [{"name": name, "path": str(folder / f"{name}.jsonl")} for name in ("a", "b")]
    return config_from_tables(
        {"tasks": {"sources": sources}, "agent": {"tools": ["submit_final_answer"]}, **more},
        where="test",
    )


def test_every_source_is_checked_and_digested_before_a_run(tmp_path: Path) -> None:
    found = config(tmp_path)
    check_task_files(found)
    (tmp_path / "b.jsonl").write_text("{}\n")

    with pytest.raises(InputError, match=r"b.jsonl, line 1: field 'task_id' is missing"):
        check_task_files(found)
    assert {"tasks.sources.a.path", "tasks.sources.b.path"} <= set(input_digests(found))


def test_two_sources_may_not_share_a_task_id(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tasks(tasks("same", 2), tmp_path / name)

    with pytest.raises(InputError, match=r"task_id 'same-0' is in .*a and in .*b; ids of sources"):
        read_sources({"x": str(tmp_path / "a"), "y": str(tmp_path / "b")}, read_tasks)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": "t.jsonl", "sources": [{"name": "a", "path": "a"}]}, r"exclude each other"),
        ({"sources": [{"name": "a", "path": "a"}] * 2}, r"two are called 'a'"),
        ({"sources": [{"name": "a", "path": ""}]}, r"'a': path must be that of a task file"),
        ({"sources": [{"name": "a", "path": "a", "weight": 0}]}, r"weight .*above 0"),
    ],
)
def test_sources_that_cannot_be_meant_are_refused(tables: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_tables({"tasks": tables}, where="test")


def test_the_generated_world_takes_no_sources_beside_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"world.enabled and \[\[tasks.sources\]\] exclude"):
        check_pairs(config(tmp_path, world={"enabled": True}))
