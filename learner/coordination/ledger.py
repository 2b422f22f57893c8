"""The coordinator's state as bytes, for the checkpoint: cursors, counters, groups, trajectories.

Leases that were out when the ledger was written are handed out again after a resume, and counted
as dropped under ``lost_at_restart``.
"""

from collections import Counter
from typing import Any

import msgpack

from common.errors import InputError
from common.wire.codec import SCHEMA_VERSION, decode, encode
from common.wire.records import Trajectory
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.groups import Group

LEDGER_FORMAT = 4
_ONE_CURSOR = 3
"""The format before training could draw from several sources; it had one ``cursor``."""


def save_ledger(coordinator: Coordinator) -> bytes:
    """The ledger of a coordinator that is not being changed meanwhile."""
    groups, counters = coordinator.groups, coordinator.counters
    return bytes(
        msgpack.packb(
            {
                "format": LEDGER_FORMAT,
                "schema": SCHEMA_VERSION,
                "cursors": groups.order.cursors,
                "next_group": groups.next_group,
                "next_evaluation": coordinator.next_evaluation,
                "batches_taken": groups.batches_taken,
                "started": counters.started,
                "finished": counters.finished,
                "trained": counters.trained,
                "duplicates": counters.duplicates,
                "dropped": dict(counters.dropped),
                "tokens_generated": counters.tokens_generated,
                "cells_executed": counters.cells_executed,
                "late": len(groups.late),
                "groups": [_save_group(g) for g in (*groups.open_groups.values(), *groups.ready)],
            }
        )
    )


def restore_ledger(coordinator: Coordinator, ledger: bytes) -> None:
    """Put a fresh coordinator into the state that ``save_ledger`` wrote.

    Raises:
        InputError: another version of l-zero wrote it, it is of other sources of tasks, or the task
            file no longer holds a task of an open group.
    """
    state = _readable(ledger)
    groups = coordinator.groups
    coordinator.next_evaluation = state["next_evaluation"]
    groups.order.go_to(state["cursors"])
    groups.next_group = state["next_group"]
    groups.batches_taken = state["batches_taken"]
    groups.counters = Counters(
        started=state["started"],
        finished=state["finished"],
        trained=state["trained"],
        duplicates=state["duplicates"],
        dropped=Counter(state["dropped"]),
        tokens_generated=state["tokens_generated"],
        cells_executed=state["cells_executed"],
    )
    if state["late"]:
        groups.counters.drop("lost_at_restart", state["late"])
    for saved in state["groups"]:
        _restore_group(coordinator, saved)


def _readable(ledger: bytes) -> dict[str, Any]:
    """The ledger, if this version of l-zero can read it and the trajectories in it."""
    state = msgpack.unpackb(ledger, strict_map_key=False)
    if state.get("format") == _ONE_CURSOR:
        state |= {"format": LEDGER_FORMAT, "cursors": {"": state["cursor"]}}
    for name, ours in {"format": LEDGER_FORMAT, "schema": SCHEMA_VERSION}.items():
        if state.get(name) != ours:
            raise InputError(
                f"the checkpoint's ledger has {name} {state.get(name)}, this version of l-zero "
                f"reads {ours}; resume with the version that wrote it, or begin a new run from "
                "the weights: set model.path to the folder 'hf' inside the checkpoint"
            )
    return dict(state)


def _save_group(group: Group) -> dict[str, Any]:
    return {
        "number": group.number,
        "task_id": group.task.task_id,
        "size": group.size,
        "waiting": [*group.waiting, *group.leased.values()],
        "leased": len(group.leased),
        "attempts": sorted(group.attempts.items()),
        "failures": sorted(group.failures.items()),
        "num_bytes": group.num_bytes,
        "finished": [[bytes(frame) for frame in encode(t)] for t in group.finished],
    }


def _restore_group(coordinator: Coordinator, saved: dict[str, Any]) -> None:
    groups = coordinator.groups
    try:
        task = groups.order.by_id(saved["task_id"])
    except KeyError:
        raise InputError(
            f"the checkpoint has an open group of task '{saved['task_id']}', which the task file "
            "no longer holds; resume with the task file the run was started with"
        ) from None
    group = Group.fresh(saved["number"], task, saved["size"])
    group.waiting = sorted(saved["waiting"])
    group.attempts = dict(saved["attempts"])
    group.failures = dict(saved["failures"])
    group.num_bytes = saved["num_bytes"]
    for frames in saved["finished"]:
        trajectory = decode(frames)
        if isinstance(trajectory, Trajectory):
            group.finished.append(trajectory)
    if saved["leased"]:
        groups.counters.drop("lost_at_restart", saved["leased"])
    if group.complete:
        groups.ready.append(group)
    else:
        groups.open_groups[group.group_id] = group
