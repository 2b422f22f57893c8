"""The coordinator bounds staleness, hands every task out until it is settled, and counts all."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import Hello, Outcome, Task, TaskLease, Trajectory
from common.testing import make_trajectory
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import SignalFilter, TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger

TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(7)]


def coordinator(
    *,
    max_staleness: int = 1,
    groups: int = 2,
    group_size: int = 2,
    batches: int = 100,
    **more: Any,
) -> Coordinator:
    return Coordinator(
        TaskOrder(TASKS, seed=0),
        groups_per_batch=groups,
        group_size=group_size,
        max_staleness=max_staleness,
        total_batches=batches,
        max_buffered_bytes=1 << 30,
        **more,
    )


def join(state: Coordinator, actor_id: str = "a0", credit: int = 100) -> None:
    state.join(
        Hello(actor_id=actor_id, run_id="r", schema_version=1, credit=credit, kernel_level="A")
    )


def finished(
    lease: TaskLease, *, version: int = 0, outcome: Outcome = Outcome.SUBMITTED
) -> Trajectory:
    return make_trajectory(
        lease.lease_id,
        group_id=lease.group_id,
        sample_index=lease.sample_index,
        version=version,
        outcome=outcome,
        purpose=lease.purpose,
    )


def with_reward(lease: TaskLease, reward: float) -> Trajectory:
    one = finished(lease)
    return replace(one, step_rewards=np.array([0.0, reward], dtype=np.float32))


def settle(state: Coordinator, leases: Iterable[TaskLease], *, version: int, now: int) -> None:
    for lease in leases:
        state.receive(finished(lease, version=version), learner_version=now)


def balance(state: Coordinator) -> int:
    """started - trained - dropped: what must still be somewhere."""
    counters = state.counters
    return counters.started - counters.trained - counters.dropped.total()


def test_admission_stops_at_the_staleness_bound_and_reopens_with_the_version() -> None:
    state = coordinator(max_staleness=1)
    join(state)

    first = state.hand_out()
    state.version = 1
    second = state.hand_out()

    assert len(first) == (1 + 0 + 1) * 4
    assert len(second) == 4


def test_synchronous_training_hands_out_one_batch_per_version() -> None:
    state = coordinator(max_staleness=0)
    join(state)

    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases, version=0, now=0)
    batch = state.take_batch(learner_version=0)

    assert batch is not None
    assert len(batch) == 4
    assert state.hand_out() == []
    state.version = 1
    assert len(state.hand_out()) == 4


def test_group_members_are_samples_of_the_same_task() -> None:
    state = coordinator()
    join(state)

    leases = [lease for _, lease in state.hand_out()]

    for group_id in {lease.group_id for lease in leases}:
        members = [lease for lease in leases if lease.group_id == group_id]
        assert len({lease.task.task_id for lease in members}) == 1
        assert sorted(lease.sample_index for lease in members) == [0, 1]


def test_second_copy_of_a_trajectory_is_dropped() -> None:
    state = coordinator()
    join(state)
    lease = state.hand_out()[0][1]

    kept = state.receive(finished(lease), learner_version=0)
    again = state.receive(finished(lease), learner_version=0)

    assert (kept, again) == (True, False)
    assert state.counters.duplicates == 1
    assert state.counters.finished == 1


def test_stale_trajectory_is_counted_and_its_place_handed_out_again() -> None:
    state = coordinator(max_staleness=1)
    join(state, credit=1)
    ((_, lease),) = state.hand_out()

    state.receive(finished(lease, version=0), learner_version=2)
    ((_, again),) = state.hand_out()

    assert state.counters.dropped == {"stale_on_arrival": 1}
    assert (again.group_id, again.sample_index) == (lease.group_id, lease.sample_index + 1)
    assert balance(state) == 1


def test_group_that_went_stale_in_the_buffer_never_enters_a_batch() -> None:
    state = coordinator(max_staleness=1, groups=1)
    join(state)
    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases[:2], version=0, now=0)
    settle(state, leases[2:4], version=1, now=1)

    batch = state.take_batch(learner_version=2)

    assert batch is not None
    assert {trajectory.oldest_version for trajectory in batch} == {1}
    assert state.counters.dropped == {"stale_in_buffer": 2}


def test_infrastructure_failure_is_tried_again_and_never_trained() -> None:
    state = coordinator()
    join(state, credit=1)
    ((_, lease),) = state.hand_out()

    state.receive(finished(lease, outcome=Outcome.INFRASTRUCTURE), learner_version=0)

    assert state.counters.dropped.total() == 1
    assert state.open_groups[lease.group_id].pending == 2


def test_member_that_keeps_failing_leaves_a_smaller_group() -> None:
    state = coordinator(groups=1, group_size=3)
    join(state, credit=1)
    survivors = 0
    while not state.ready:
        ((_, lease),) = state.hand_out()
        fails = lease.sample_index == 1
        survivors += not fails
        outcome = Outcome.INFRASTRUCTURE if fails else Outcome.SUBMITTED
        state.receive(finished(lease, outcome=outcome), learner_version=0)

    batch = state.take_batch(learner_version=0)

    assert batch is not None
    assert len(batch) == survivors == 2
    assert state.counters.dropped.total() == 3


def test_leases_of_a_lost_actor_go_to_another() -> None:
    state = coordinator()
    join(state, "a0")
    lost = [lease for _, lease in state.hand_out()]

    state.leave("a0", "actor_silent")
    join(state, "a1")
    again = state.hand_out()

    assert {actor for actor, _ in again} == {"a1"}
    assert len(again) == len(lost)
    assert state.counters.dropped == {"actor_silent": len(lost)}
    assert state.receive(finished(lost[0]), learner_version=0) is False


def test_reconnecting_actor_keeps_the_leases_it_still_holds() -> None:
    state = coordinator()
    join(state, "a0")
    leases = [lease for _, lease in state.hand_out()]

    state.join(
        Hello(
            actor_id="a0",
            run_id="r",
            schema_version=1,
            credit=100,
            kernel_level="A",
            unacknowledged=(leases[0].lease_id,),
        )
    )

    assert state.receive(finished(leases[0]), learner_version=0) is True
    assert state.receive(finished(leases[1]), learner_version=0) is False


def test_evaluation_runs_first_and_stays_out_of_the_counters() -> None:
    state = coordinator()
    join(state, credit=3)
    state.begin_evaluation(TASKS[:3], temperature=0.5)

    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases, version=0, now=0)
    results = state.take_evaluation()

    assert {lease.temperature for lease in leases} == {0.5}
    assert results is not None
    assert len(results) == 3
    assert state.counters.started == state.counters.finished == 0
    assert state.take_evaluation() is None


def test_task_order_is_a_permutation_per_epoch_and_resumes_at_its_cursor() -> None:
    order = TaskOrder(TASKS, seed=3)
    seen = [order.next().task_id for _ in range(14)]
    resumed = TaskOrder(TASKS, seed=3, cursor=9)

    assert sorted(seen[:7]) == sorted(seen[7:]) == sorted(t.task_id for t in TASKS)
    assert seen[:7] != seen[7:]
    assert [resumed.next().task_id for _ in range(5)] == seen[9:]


def test_ledger_brings_back_finished_trajectories_and_hands_out_the_rest() -> None:
    state = coordinator(groups=2, group_size=2)
    join(state)
    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases[:3], version=0, now=0)

    restored = coordinator(groups=2, group_size=2)
    restore_ledger(restored, save_ledger(state))
    join(restored)
    again = [lease for _, lease in restored.hand_out()]
    settle(restored, again, version=0, now=0)
    batch = restored.take_batch(learner_version=0)

    assert restored.counters.dropped == {"lost_at_restart": len(leases) - 3}
    assert len(again) == len(leases) - 3
    assert not {lease.lease_id for lease in again} & {lease.lease_id for lease in leases}
    assert batch is not None
    np.testing.assert_array_equal(
        batch[0].segments[0].token_ids, finished(leases[0]).segments[0].token_ids
    )


def test_groups_without_signal_are_replaced_and_counted() -> None:
    state = coordinator(signal_filter=SignalFilter(discount=0.95, patience=8), max_staleness=0)
    join(state)
    rewards = {"g000000": (1.0, 1.0), "g000001": (0.0, 1.0), "g000002": (1.0, 0.0)}

    for _ in range(2):
        for _, lease in state.hand_out():
            reward = rewards[lease.group_id][lease.sample_index]
            state.receive(with_reward(lease, reward), learner_version=0)
    batch = state.take_batch(learner_version=0)

    assert batch is not None
    assert {t.group_id for t in batch} == {"g000001", "g000002"}
    assert state.counters.dropped == {"no_signal": 2}
    assert balance(state) == 0


def test_where_no_group_has_a_signal_the_batch_comes_after_some_patience() -> None:
    state = coordinator(signal_filter=SignalFilter(discount=0.95, patience=3), max_staleness=0)
    join(state)

    batch = None
    for _ in range(5):
        for _, lease in state.hand_out():
            state.receive(with_reward(lease, 1.0), learner_version=0)
        batch = batch or state.take_batch(learner_version=0)

    assert batch is not None
    assert len(batch) == state.batch
    assert state.counters.dropped == {"no_signal": 6}


def test_an_overdue_group_goes_on_without_its_late_member() -> None:
    state = coordinator(groups=1, group_size=3, max_staleness=0, group_timeout_s=10.0)
    join(state)
    first, second, third = (lease for _, lease in state.hand_out())
    state.receive(finished(first), learner_version=0, now=100.0)

    assert state.close_overdue(111.0) == 0, "one member of three is not enough"
    state.receive(finished(second), learner_version=0, now=105.0)
    assert state.close_overdue(109.0) == 0
    assert state.close_overdue(110.0) == 1
    batch = state.take_batch(learner_version=0)

    assert batch is not None
    assert [t.sample_index for t in batch] == [0, 1]
    assert state.hand_out() == [], "the late member still holds its credit and place"
    assert state.receive(finished(third), learner_version=0)
    assert state.counters.dropped == {"late": 1}
    assert balance(state) == 0


def test_a_late_member_is_accounted_for_after_a_restart() -> None:
    state = coordinator(groups=1, group_size=3, max_staleness=0, group_timeout_s=1.0)
    join(state)
    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases[:2], version=0, now=0)
    state.close_overdue(5.0)

    restored = coordinator(groups=1, group_size=3, max_staleness=0)
    restore_ledger(restored, save_ledger(state))

    assert len(restored.ready) == 1
    assert restored.counters.dropped == {"lost_at_restart": 1}
    assert balance(restored) == 2


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 3))
def test_no_batch_ever_exceeds_the_bound_whatever_the_order_of_events(
    data: st.DataObject, bound: int
) -> None:
    state = coordinator(max_staleness=bound)
    join(state)
    held: list[tuple[TaskLease, int]] = []
    learner = 0
    for _ in range(40):
        held += [(lease, state.version) for _, lease in state.hand_out()]
        event = data.draw(st.sampled_from(["finish", "fail", "publish", "take"]))
        if event in ("finish", "fail") and held:
            lease, version = held.pop(data.draw(st.integers(0, len(held) - 1)))
            outcome = Outcome.SUBMITTED if event == "finish" else Outcome.INFRASTRUCTURE
            state.receive(
                finished(lease, version=version, outcome=outcome), learner_version=learner
            )
        elif event == "publish":
            state.version = learner
        elif event == "take":
            batch = state.take_batch(learner_version=learner)
            if batch is not None:
                staleness = [learner - (t.oldest_version or 0) for t in batch]
                assert 0 <= max(staleness) <= bound
                learner += 1

    kept = sum(len(g.finished) for g in (*state.open_groups.values(), *state.ready))
    leased = sum(len(g.leased) for g in state.open_groups.values())
    assert balance(state) == kept + leased
