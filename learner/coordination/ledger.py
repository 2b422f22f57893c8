"""The coordinator's state as bytes, for the checkpoint: cursor, counters, groups, trajectories.

Leases that were out when the ledger was written are handed out again after a resume, and counted
as dropped under ``lost_at_restart``.
"""

from collections import Counter
from typing import Any

import msgpack

from common.codec import decode, encode
from common.errors import InputError
from common.messages import Trajectory
from learner.coordination.coordinator import Coordinator, Counters
from learner.coordination.groups import Group

LEDGER_FORMAT = 2


def save_ledger(coordinator: Coordinator) -> bytes:
    """The ledger of a coordinator that is not being changed meanwhile."""
    counters = coordinator.counters
    groups = [*coordinator.open_groups.values(), *coordinator.ready]
    return bytes(
        msgpack.packb(
            {
                "format": LEDGER_FORMAT,
                "attempt": coordinator.attempt,
                "cursor": coordinator.order.cursor,
                "next_group": coordinator.next_group,
                "batches_taken": coordinator.batches_taken,
                "started": counters.started,
                "finished": counters.finished,
                "trained": counters.trained,
                "duplicates": counters.duplicates,
                "dropped": dict(counters.dropped),
                "tokens_generated": counters.tokens_generated,
                "cells_executed": counters.cells_executed,
                "late": len(coordinator.late),
                "groups": [_save_group(group) for group in groups],
            }
        )
    )


def restore_ledger(coordinator: Coordinator, ledger: bytes) -> None:
    """Put a fresh coordinator into the state that ``save_ledger`` wrote.

    Raises:
        InputError: another format version, or the task file no longer holds a task of an open
            group.
    """
    state = msgpack.unpackb(ledger)
    if state["format"] != LEDGER_FORMAT:
        raise InputError(
            f"the checkpoint's ledger has format {state['format']}, this version reads "
            f"{LEDGER_FORMAT}; resume with the version that wrote it"
        )
    coordinator.attempt = state["attempt"] + 1
    coordinator.order.cursor = state["cursor"]
    coordinator.next_group = state["next_group"]
    coordinator.batches_taken = state["batches_taken"]
    coordinator.counters = Counters(
        started=state["started"],
        finished=state["finished"],
        trained=state["trained"],
        duplicates=state["duplicates"],
        dropped=Counter(state["dropped"]),
        tokens_generated=state["tokens_generated"],
        cells_executed=state["cells_executed"],
    )
    if state["late"]:
        coordinator.counters.dropped["lost_at_restart"] += state["late"]
    for saved in state["groups"]:
        _restore_group(coordinator, saved)


def _save_group(group: Group) -> dict[str, Any]:
    return {
        "number": group.number,
        "task_id": group.task.task_id,
        "size": group.size,
        "waiting": [*group.waiting, *group.leased.values()],
        "leased": len(group.leased),
        "num_bytes": group.num_bytes,
        "finished": [[bytes(frame) for frame in encode(t)] for t in group.finished],
    }


def _restore_group(coordinator: Coordinator, saved: dict[str, Any]) -> None:
    try:
        task = coordinator.order.by_id(saved["task_id"])
    except KeyError:
        raise InputError(
            f"the checkpoint has an open group of task '{saved['task_id']}', which the task file "
            "no longer holds; resume with the task file the run was started with"
        ) from None
    group = Group.fresh(saved["number"], task, saved["size"])
    group.waiting = sorted(saved["waiting"])
    group.num_bytes = saved["num_bytes"]
    for frames in saved["finished"]:
        trajectory = decode(frames)
        if isinstance(trajectory, Trajectory):
            group.finished.append(trajectory)
    if saved["leased"]:
        coordinator.counters.dropped["lost_at_restart"] += saved["leased"]
    if group.complete:
        coordinator.ready.append(group)
    else:
        coordinator.open_groups[group.group_id] = group
