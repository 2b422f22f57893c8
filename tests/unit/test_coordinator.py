"""The coordinator bounds staleness, hands every task out until it is settled, and counts all."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import msgpack
import numpy as np
import pytest

from common.errors import InputError
from common.wire.records import Outcome, Purpose, Segment, Task, TaskLease, Trajectory
from common.wire.session import Heartbeat, Hello
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import SignalFilter, TaskOrder
from learner.coordination.ledger import restore_ledger, save_ledger
from learner.coordination.trajectory_checks import ModelLimits
from tests.makers import make_segment, make_trajectory

A0 = "a0#s"
TASKS = [Task(task_id=f"t{i}", question="?", answers=("a",)) for i in range(7)]


def coordinator(
    *,
    max_staleness: int = 1,
    groups: int = 2,
    group_size: int = 2,
    batches: int = 100,
    max_buffered_bytes: int = 1 << 30,
    tasks: Sequence[Task] = TASKS,
    **more: Any,
) -> Coordinator:
    return Coordinator(
        TaskOrder(tasks, seed=0),
        groups_per_batch=groups,
        group_size=group_size,
        max_staleness=max_staleness,
        total_batches=batches,
        max_buffered_bytes=max_buffered_bytes,
        **more,
    )


def hello(actor_id: str = "a0", credit: int = 100, session: str = "s") -> Hello:
    return Hello(
        actor_id=actor_id, session=session, schema_version=1, credit=credit,
        kernel_level="A",
    )  # fmt: skip


def join(state: Coordinator, actor_id: str = "a0", credit: int = 100, now: float = 0.0) -> str:
    """The identity of a session of an actor that has said hello."""
    greeting = hello(actor_id, credit)
    state.join(greeting, now=now)
    return greeting.identity


def finished(
    lease: TaskLease,
    *,
    version: int = 0,
    outcome: Outcome = Outcome.SUBMITTED,
    actor_id: str = "a0",
) -> Trajectory:
    return make_trajectory(
        lease.lease_id,
        group_id=lease.group_id,
        sample_index=lease.sample_index,
        version=version,
        outcome=outcome,
        purpose=lease.purpose,
        task_id=lease.task.task_id,
        actor_id=actor_id,
    )


def with_reward(lease: TaskLease, reward: float) -> Trajectory:
    one = finished(lease)
    return replace(one, step_rewards=np.array([0.0, reward], dtype=np.float32))


def settle(state: Coordinator, leases: Iterable[TaskLease], *, version: int, now: int) -> None:
    for lease in leases:
        state.receive(A0, finished(lease, version=version), learner_version=now)


def overdue(state: Coordinator, now: float) -> int:
    """How many groups are closed at ``now`` although members are missing."""
    before = len(state.groups.ready)
    state.tick(now)
    return len(state.groups.ready) - before


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


def test_nothing_is_admitted_beyond_the_last_batch() -> None:
    state = coordinator(max_staleness=3, batches=2)
    join(state)

    assert len(state.hand_out()) == 2 * 4


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

    kept = state.receive(A0, finished(lease), learner_version=0)
    again = state.receive(A0, finished(lease), learner_version=0)

    assert (kept, again) == (True, False)
    assert state.counters.duplicates == 1
    assert state.counters.finished == 1


def test_stale_trajectory_is_counted_and_its_place_handed_out_again() -> None:
    state = coordinator(max_staleness=1)
    join(state, credit=1)
    places = []
    for _ in range(8):
        ((_, lease),) = state.hand_out()
        state.receive(A0, finished(lease, version=0), learner_version=2)
        places.append((lease.group_id, lease.sample_index))

    assert state.counters.dropped == {"stale_on_arrival": 8}
    assert places == [("g000000", 0), ("g000000", 1)] * 4, "it is not the member's failure"
    assert balance(state) == 0


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


class LookedThrough(Trajectory):
    """Counts how often its tokens are looked through."""

    looks = 0

    @property
    def oldest_version(self) -> int | None:
        LookedThrough.looks += 1
        return super().oldest_version


def test_a_learner_that_waits_looks_through_no_trajectory_again_and_again() -> None:
    state = coordinator(groups=3)
    join(state)
    leases = [lease for _, lease in state.hand_out()]
    for lease in leases[:4]:
        made = finished(lease)
        counted = LookedThrough(**{f.name: getattr(made, f.name) for f in fields(made)})
        state.receive(A0, counted, learner_version=0)
    for _ in range(100):
        assert state.take_batch(learner_version=0) is None

    assert LookedThrough.looks <= 2 * 4, "once when it comes, once in its group"
    assert state.take_batch(learner_version=2) is None
    assert state.counters.dropped == {"stale_in_buffer": 4}, "and it still grows old"


def test_a_group_is_as_old_as_its_oldest_member_whatever_comes_later() -> None:
    state = coordinator(group_size=3, groups=1, max_staleness=5)
    join(state)
    leases = [lease for _, lease in state.hand_out()][:3]
    group = state.groups.open_groups[leases[0].group_id]
    seen = [group.oldest_version]
    for lease, version in zip(leases, (5, 3, 4), strict=True):
        state.receive(A0, finished(lease, version=version), learner_version=5)
        seen.append(group.oldest_version)

    assert seen == [None, 5, 3, 3]


def test_infrastructure_failure_is_tried_again_and_never_trained() -> None:
    state = coordinator()
    join(state, credit=1)
    ((_, lease),) = state.hand_out()

    state.receive(A0, finished(lease, outcome=Outcome.INFRASTRUCTURE), learner_version=0)

    assert state.counters.dropped.total() == 1
    assert state.groups.open_groups[lease.group_id].pending == 2


def test_member_that_keeps_failing_leaves_a_smaller_group() -> None:
    state = coordinator(groups=1, group_size=3)
    join(state, credit=1)
    survivors = 0
    while not state.groups.ready:
        assert state.counters.started < 9, "the member is never given up"
        ((_, lease),) = state.hand_out()
        fails = lease.sample_index == 1
        survivors += not fails
        outcome = Outcome.INFRASTRUCTURE if fails else Outcome.SUBMITTED
        state.receive(A0, finished(lease, outcome=outcome), learner_version=0)
        ledger, state = save_ledger(state), coordinator(groups=1, group_size=3)
        restore_ledger(state, ledger)  # a restart forgets no failure
        state.begin(0.0)
        join(state, credit=1)

    batch = state.take_batch(learner_version=0)

    assert batch is not None
    assert len(batch) == survivors == 2
    assert state.counters.dropped.total() == 3


def test_a_member_whose_actors_die_is_tried_until_one_lives() -> None:
    """Its attempt number grows, its tries do not; the same holds for held-out tasks."""
    state = coordinator(groups=1, group_size=2)
    state.evaluations.begin(TASKS[:1], temperature=0.0)
    for number in range(1, 6):
        identity = join(state, f"a{number}")
        leases = [lease for _, lease in state.hand_out()]
        assert {lease.lease_id.rpartition("-")[2] for lease in leases} == {str(number)}
        state.leave(identity, "actor_silent")
    join(state)
    settle(state, [lease for _, lease in state.hand_out()], version=0, now=0)

    evaluated = state.evaluations.take()
    assert evaluated is not None
    assert len(evaluated.finished) == 1
    assert len(state.take_batch(learner_version=0) or ()) == 2


def test_who_is_silent_for_a_third_of_its_time_gets_no_leases_until_it_speaks() -> None:
    state = coordinator(groups=1, group_size=2, max_staleness=0, silence_s=60.0)
    join(state)

    assert state.hand_out(now=20.1) == []
    assert state.hand_out(now=1000.0) == [], "also where nobody has looked at the clock yet"
    assert state.heard(A0, 1000.0)
    assert len(state.hand_out(now=1020.0)) == 2


def test_leases_of_a_lost_actor_go_to_another() -> None:
    state = coordinator()
    join(state, "a0")
    lost = [lease for _, lease in state.hand_out()]

    state.leave(A0, "actor_silent")
    other = join(state, "a1")
    again = state.hand_out()

    assert {actor for actor, _ in again} == {other}
    assert len(again) == len(lost)
    assert state.counters.dropped == {"actor_silent": len(lost)}
    assert state.receive(A0, finished(lost[0]), learner_version=0) is False


def test_a_lease_that_never_reached_its_session_is_handed_out_again() -> None:
    state = coordinator()
    identity = join(state)
    leases = [lease for _, lease in state.hand_out()]
    arrived, lost = leases[:-1], leases[-1]

    named = tuple(lease.lease_id for lease in arrived)
    sent = state.heartbeat(identity, Heartbeat(seen=arrived[-1].serial, leases=named))
    assert state.counters.dropped == {}, "it may still be on its way"
    state.heartbeat(identity, Heartbeat(seen=sent, leases=named))
    ((_, again),) = state.hand_out()

    assert sent == lost.serial
    assert state.counters.dropped == {"never_arrived": 1}
    assert (again.group_id, again.sample_index) == (lost.group_id, lost.sample_index)
    assert again.lease_id != lost.lease_id


def test_an_actor_that_starts_again_is_another_session_and_takes_nothing_away() -> None:
    state = coordinator(groups=1, group_size=2)
    join(state, credit=2)
    leases = [lease for _, lease in state.hand_out()]

    state.join(hello(session="after a crash"))

    assert state.receive(A0, finished(leases[0]), learner_version=0)
    assert state.counters.dropped.total() == 0


def test_a_lease_ends_at_its_deadline_even_if_its_session_lives() -> None:
    state = coordinator(groups=1, group_size=2, max_staleness=0, lease_timeout_s=100.0)
    identity = join(state)
    leases = [lease for _, lease in state.hand_out(now=0.0)]
    named = tuple(lease.lease_id for lease in leases)
    for now in (40.0, 80.0, 120.0, 129.0):
        state.heard(identity, now)
        state.heartbeat(identity, Heartbeat(seen=2, leases=named))
        state.tick(now)
        assert state.counters.dropped == {}, "its time, and that to deliver, are not over"
    state.tick(131.0)

    assert state.counters.dropped == {"lease_expired": 2}
    assert [lease.sample_index for _, lease in state.hand_out(now=131.0)] == [0, 1]


def test_lease_ids_are_functions_of_group_member_and_attempt() -> None:
    state = coordinator(groups=1, group_size=2, max_staleness=0)
    join(state)
    first = [lease.lease_id for _, lease in state.hand_out()]
    state.leave(A0, "actor_left")
    join(state)
    again = [lease.lease_id for _, lease in state.hand_out()]
    restored = coordinator(groups=1, group_size=2, max_staleness=0)
    restore_ledger(restored, save_ledger(state))
    restored.begin(0.0)
    join(restored)

    assert first == ["g000000-0-1", "g000000-1-1"]
    assert again == ["g000000-0-2", "g000000-1-2"]
    assert [lease.lease_id for _, lease in restored.hand_out()] == ["g000000-0-3", "g000000-1-3"]


def test_capacity_after_short_batches_is_that_of_full_ones() -> None:
    state = coordinator(groups=2, group_size=4, max_staleness=0, group_timeout_s=1.0)
    join(state)
    handed = 0
    for version in range(30):
        leases = [lease for _, lease in state.hand_out(now=0.0)]
        handed += len(leases)
        on_time = [lease for lease in leases if lease.sample_index < 3]
        settle(state, on_time, version=version, now=version)
        state.tick(2.0)
        settle(state, [x for x in leases if x not in on_time], version=version, now=version)
        batch = state.take_batch(learner_version=version)
        assert batch is not None
        assert len(batch) == 6
        assert state.capacity == 0, "the next version admits the next batch"
        state.version = version + 1
        assert state.capacity == 8

    assert handed == 30 * 8
    assert state.counters.dropped == {"late": 30 * 2}


def test_no_group_is_opened_while_the_buffer_is_full() -> None:
    def limited() -> Coordinator:
        return coordinator(groups=1, max_staleness=9, max_buffered_bytes=100)

    state, restored = limited(), limited()
    join(state, credit=2)
    for _, lease in state.hand_out():
        state.receive(A0, finished(lease), learner_version=0, num_bytes=60)
    restore_ledger(restored, save_ledger(state))
    restored.begin(0.0)
    join(restored, credit=2)

    for full in (state, restored):
        assert full.hand_out() == []
        assert full.take_batch(learner_version=0) is not None
        assert len(full.hand_out()) == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group_id": "g000009"}, "lease"),
        ({"sample_index": 7}, "lease"),
        ({"task_id": "another"}, "lease"),
        ({"purpose": Purpose.EVALUATE}, "lease"),
        ({"actor_id": "a1"}, "lease"),
        ({"step_rewards": np.array([0.0, np.nan], dtype=np.float32)}, "reward"),
        ({"step_rewards": np.array([0.0, 1e38], dtype=np.float32)}, "reward"),
        ({"scores": {"exact_match": float("inf")}}, "score"),
        ({"scores": {"f1": 1.0}}, "score"),
        ({"tokens_generated": -1}, "count"),
        ({"cells_executed": 2**40}, "count"),
        ({"segments": ()}, "length"),
        ({"token_ids": [-1, 0]}, "vocabulary"),
        ({"token_ids": [0, 64]}, "vocabulary"),
        ({"extra_tokens": 40}, "length"),
        ({"extra_tokens": -12}, "length"),
        ({"first_is_sampled": True}, "action"),
        ({"action_order": True}, "action"),
        ({"segments": (make_segment([3, 2]), make_segment([3, 2]))}, "action"),
        ({"logprobs": 0.5}, "logprob"),
        ({"logprobs": np.nan}, "logprob"),
        ({"logprobs": -np.inf}, "logprob"),
        ({"version": 2}, "version"),
    ],
)
def test_what_does_not_fit_lease_model_or_weights_is_dropped_with_a_reason(
    change: dict[str, Any], reason: str
) -> None:
    state = coordinator(limits=ModelLimits(vocabulary=64, max_context=32))
    join(state, credit=1)
    ((_, lease),) = state.hand_out()

    assert not state.receive(A0, spoilt(finished(lease), change), learner_version=0)

    assert state.counters.dropped == {f"invalid:{reason}": 1}
    assert balance(state) == 0
    ((_, again),) = state.hand_out()
    assert state.receive(A0, finished(again), learner_version=0)


def spoilt(trajectory: Trajectory, change: dict[str, Any]) -> Trajectory:
    """The trajectory with one thing wrong, in a field of its own or of its segment."""
    segment = trajectory.segments[0]
    arrays = {
        name: np.array(getattr(segment, name))
        for name in ("token_ids", "action_index", "behaviour_logprobs", "versions")
    }
    (name, value), *_ = change.items()
    sampled = arrays["action_index"] >= 0
    match name:
        case "token_ids":
            arrays["token_ids"][:2] = value
        case "extra_tokens" if value > 0:
            fill = {"action_index": -1, "versions": -1}
            arrays = {
                k: np.append(v, np.full(value, fill.get(k, 0), dtype=v.dtype))
                for k, v in arrays.items()
            }
        case "extra_tokens":
            arrays = {k: v[:0] for k, v in arrays.items()}
        case "first_is_sampled":
            arrays["action_index"][0] = arrays["versions"][0] = 0
        case "action_order":
            arrays["action_index"][sampled] = arrays["action_index"][sampled][::-1]
        case "logprobs":
            arrays["behaviour_logprobs"][sampled] = value
        case "version":
            arrays["versions"][sampled] = value
        case _:
            return replace(trajectory, **change)
    return replace(trajectory, segments=(Segment(**arrays),))


def test_three_failures_of_one_kind_in_a_row_are_an_alert_and_named_while_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    state = coordinator(tell=told.append)
    join(state, credit=1)
    for _ in range(3):
        ((_, lease),) = state.hand_out()
        failed = replace(
            finished(lease, outcome=Outcome.INFRASTRUCTURE),
            failure="PluginError: reward term 'mine' raised KeyError",
        )
        state.receive(A0, failed, learner_version=0)

    assert "3 episodes in a row failed reason=infrastructure:PluginError" in caplog.text
    assert told == [
        "3 episodes in a row failed (infrastructure:PluginError): "
        "PluginError: reward term 'mine' raised KeyError"
    ]
    assert (
        "dropped so far: infrastructure:PluginError 3 "
        "(last: PluginError: reward term 'mine' raised KeyError)" in state.waiting_for()
    )


def test_a_full_buffer_is_named_while_waiting() -> None:
    state = coordinator()
    state._admission.max_buffered_bytes = 1
    join(state)
    for _, lease in state.hand_out():
        state.receive(A0, finished(lease), learner_version=0, num_bytes=100)

    assert state.hand_out() == []
    assert "no room for more trajectories" in state.waiting_for()


def test_a_ledger_of_another_version_says_what_to_do() -> None:
    state = msgpack.unpackb(save_ledger(coordinator()))

    for change in ({"format": 2}, {"schema": 3}):
        with pytest.raises(InputError, match=r"resume with the version .*model\.path .*'hf'"):
            restore_ledger(coordinator(), msgpack.packb({**state, **change}))


def test_the_number_of_reasons_is_bounded_whatever_peers_say() -> None:
    state = coordinator(batches=10_000, max_staleness=9_000)
    join(state, credit=1)
    for number in range(200):
        ((_, lease),) = state.hand_out()
        failed = finished(lease, outcome=Outcome.INFRASTRUCTURE)
        state.receive(A0, replace(failed, failure=f"Kind{number}: x"), learner_version=0)

    assert len(state.counters.dropped) <= 65
    assert state.counters.dropped.total() == 200


def test_a_pinned_evaluation_runs_first_and_stays_out_of_the_counters() -> None:
    state = coordinator()
    join(state, credit=3)
    state.evaluations.begin(TASKS[:3], temperature=0.5, pinned=True)

    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases, version=0, now=0)
    results = state.evaluations.take()

    assert {lease.temperature for lease in leases} == {0.5}
    assert results is not None
    assert len(results.finished) == 3
    assert state.counters.started == state.counters.finished == 0
    assert state.evaluations.take() is None


def test_an_evaluation_beside_training_gets_one_lease_in_four() -> None:
    state = coordinator()
    join(state, credit=9)
    state.evaluations.begin(TASKS[:5], temperature=0.5)

    purposes = [lease.purpose for _, lease in state.hand_out()]

    assert purposes == [*[Purpose.TRAIN] * 3, Purpose.EVALUATE] * 2 + [Purpose.TRAIN]


def test_an_evaluation_beside_training_gets_all_that_training_leaves() -> None:
    state = coordinator(groups=1, group_size=2, max_staleness=0)
    join(state, credit=9)
    state.evaluations.begin(TASKS[:5], temperature=0.5)

    purposes = [lease.purpose for _, lease in state.hand_out()]

    assert purposes == [Purpose.TRAIN] * 2 + [Purpose.EVALUATE] * 5


@pytest.mark.parametrize("pinned", [False, True])
def test_an_evaluation_of_a_version_waits_until_that_is_served(pinned: bool) -> None:
    state = coordinator(groups=1, group_size=2, max_staleness=0)
    join(state, credit=9)
    state.evaluations.begin(TASKS[:3], temperature=0.5, version=1, pinned=pinned)
    before = [lease.purpose for _, lease in state.hand_out()]

    state.version = 1
    after = [lease.purpose for _, lease in state.hand_out()]

    assert Purpose.EVALUATE not in before
    assert after.count(Purpose.EVALUATE) == 3


def test_a_held_out_task_that_keeps_failing_is_given_up() -> None:
    state = coordinator()
    join(state, credit=1)
    state.evaluations.begin(TASKS[:1], temperature=0.0, pinned=True)
    for _ in range(3):
        assert state.evaluations.take() is None
        ((_, lease),) = state.hand_out()
        assert lease.purpose is Purpose.EVALUATE
        state.receive(A0, finished(lease, outcome=Outcome.INFRASTRUCTURE), learner_version=0)

    given_up = state.evaluations.take()
    assert given_up is not None
    assert given_up.finished == []


def test_what_an_earlier_evaluation_left_does_not_count_in_the_next() -> None:
    state = coordinator()
    join(state, credit=1)
    state.evaluations.begin(TASKS[:1], temperature=0.0, pinned=True)
    ((_, lease),) = state.hand_out()
    assert lease.purpose is Purpose.EVALUATE
    state.evaluations.begin(TASKS[:1], temperature=0.0)

    state.receive(A0, finished(lease), learner_version=0)

    assert state.evaluations.take() is None


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
    restored.begin(0.0)
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


def test_a_restart_goes_on_with_the_next_task_and_evaluation() -> None:
    state, restored = coordinator(), coordinator()
    join(state, credit=3)
    state.evaluations.begin([], temperature=0.0)
    state.hand_out()

    restore_ledger(restored, save_ledger(state))
    restored.begin(0.0)

    assert restored.evaluations.next_number == state.evaluations.next_number == 1
    assert restored.groups.order.cursor == state.groups.order.cursor == 2


def test_a_task_that_is_gone_from_the_task_file_is_named() -> None:
    state = coordinator()
    join(state, credit=1)
    ((_, lease),) = state.hand_out()
    others = [task for task in TASKS if task.task_id != lease.task.task_id]

    with pytest.raises(InputError, match=rf"'{lease.task.task_id}', which the task file no longer"):
        restore_ledger(coordinator(tasks=others), save_ledger(state))


def test_groups_without_signal_are_replaced_and_counted() -> None:
    state = coordinator(signal_filter=SignalFilter(discount=0.95, patience=8), max_staleness=0)
    join(state)
    rewards = {"g000000": (1.0, 1.0), "g000001": (0.0, 1.0), "g000002": (1.0, 0.0)}

    for _ in range(2):
        for _, lease in state.hand_out():
            reward = rewards[lease.group_id][lease.sample_index]
            state.receive(A0, with_reward(lease, reward), learner_version=0)
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
            state.receive(A0, with_reward(lease, 1.0), learner_version=0)
        batch = batch or state.take_batch(learner_version=0)

    assert batch is not None
    assert len(batch) == state.groups.batch
    assert state.counters.dropped == {"no_signal": 6}


def test_an_overdue_group_goes_on_without_its_late_member() -> None:
    state = coordinator(
        groups=1, group_size=3, max_staleness=0, group_timeout_s=10.0, silence_s=500.0
    )
    join(state)
    first, second, third = (lease for _, lease in state.hand_out())
    state.receive(A0, finished(first), learner_version=0, now=100.0)

    assert overdue(state, 111.0) == 0, "one member of three is not enough"
    state.receive(A0, finished(second), learner_version=0, now=105.0)
    assert overdue(state, 109.0) == 0
    assert overdue(state, 110.0) == 1
    batch = state.take_batch(learner_version=0)

    assert batch is not None
    assert [t.sample_index for t in batch] == [0, 1]
    assert state.hand_out() == [], "the late member still holds its credit and place"
    assert state.receive(A0, finished(third), learner_version=0)
    assert state.counters.dropped == {"late": 1}
    assert balance(state) == 0


def test_a_late_member_is_accounted_for_after_a_restart() -> None:
    state = coordinator(groups=1, group_size=3, max_staleness=0, group_timeout_s=1.0)
    join(state)
    leases = [lease for _, lease in state.hand_out()]
    settle(state, leases[:2], version=0, now=0)
    overdue(state, 5.0)

    restored = coordinator(groups=1, group_size=3, max_staleness=0)
    restore_ledger(restored, save_ledger(state))
    restored.begin(0.0)

    assert len(restored.groups.ready) == 1
    assert restored.counters.dropped == {"lost_at_restart": 1}
    assert balance(restored) == 2


def test_groups_that_are_dropped_one_after_another_are_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = coordinator()
    join(state, credit=1)
    while state.counters.dropped.total() < 12:
        ((_, lease),) = state.hand_out()
        failed = replace(
            finished(lease, outcome=Outcome.INFRASTRUCTURE), failure="KernelDiedError: x"
        )
        state.receive(A0, failed, learner_version=0)

    assert caplog.text.count("group dropped") == 1


def begun_again(state: Coordinator, now: float = 0.0) -> Coordinator:
    """Another coordinator in the state of one that was killed."""
    again = coordinator(groups=1, group_size=3, max_staleness=0, silence_s=60.0)
    restore_ledger(again, save_ledger(state))
    again.begin(now)
    return again


def three_out() -> tuple[Coordinator, list[TaskLease]]:
    state = coordinator(groups=1, group_size=3, max_staleness=0)
    join(state)
    return state, [lease for _, lease in state.hand_out()]


def test_a_session_that_comes_back_goes_on_with_what_it_names() -> None:
    killed, leases = three_out()
    settle(killed, leases[:1], version=0, now=0)  # its ack is lost, so it is named, too
    state = begun_again(killed)
    named = tuple(lease.lease_id for lease in leases[:2])

    assert state.hand_out() == []
    assert state.join(replace(hello(), leases=named))

    assert state.held_by(A0) == (leases[1].lease_id,)
    settle(state, [leases[0], leases[1], leases[1]], version=0, now=0)
    assert state.counters.duplicates == 2
    ((_, again),) = state.hand_out()
    assert again.lease_id == "g000000-2-2", "it never heard of the third"
    settle(state, [again], version=0, now=0)
    assert len(state.take_batch(learner_version=0) or ()) == 3
    assert state.counters.dropped == {"lost_at_restart": 1}
    assert balance(state) == 0


def test_what_nobody_claims_in_time_is_handed_out_again_and_is_no_failure() -> None:
    state, _ = three_out()
    join(state, "a1")
    for attempt in range(2, 6):
        now = 100.0 * attempt
        state = begun_again(state, now)
        state.tick(now + 59.0)
        join(state, "a1")
        assert state.hand_out() == [], "it may still be claimed"
        assert "3 leases not claimed since the restart" in state.waiting_for()
        state.tick(now + 61.0)
        state.leave("a1#s", "actor_left")
        join(state, now=now + 61.0)
        again = [lease.lease_id for _, lease in state.hand_out(now=now + 61.0)]
        assert again == [f"g000000-{sample}-{attempt}" for sample in range(3)]


def test_an_adopted_lease_has_its_time_again() -> None:
    killed, leases = three_out()
    state = begun_again(killed)
    named = tuple(lease.lease_id for lease in leases)
    state.join(replace(hello(), leases=named))

    state.heard(A0, 300.0)
    state.heartbeat(A0, Heartbeat(seen=0, leases=named))
    state.tick(301.0)

    assert state.counters.dropped == {}
    assert len(state.held_by(A0)) == 3


def test_an_actor_that_begins_anew_gives_up_what_its_sessions_before_held() -> None:
    killed, _ = three_out()
    state = begun_again(killed)

    state.join(hello("a1", session="new"))
    assert state.hand_out() == [], "another actor's"
    state.join(hello(session="new"))

    assert len(state.hand_out()) == 3
    assert state.counters.dropped == {"lost_at_restart": 3}


def test_nobody_claims_what_another_session_held() -> None:
    killed, leases = three_out()
    state = begun_again(killed)
    named = tuple(lease.lease_id for lease in leases)

    state.join(replace(hello("a1"), leases=named))
    state.join(replace(hello(session="forged"), leases=named))
    assert state.held_by("a1#s") == state.held_by("a0#forged") == ()
    assert not state.receive("a1#s", finished(leases[0], actor_id="a1"), learner_version=0)

    state.join(replace(hello(), leases=named))
    assert state.held_by(A0) == named
