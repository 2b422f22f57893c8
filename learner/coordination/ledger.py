"""The coordinator's state as bytes, for the checkpoint: cursors, counters, groups, trajectories.

Of an evaluation under way it has what came so far, because the journal may have the rest.

It holds the leases that were out, too, with the sessions that hold them: for what the journal says
of them, and for sessions that come back (``Coordinator.begin``).
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgpack

from common.errors import InputError
from common.wire.codec import SCHEMA_VERSION, decode, encode
from common.wire.records import Trajectory
from learner.coordination.coordinator import Coordinator
from learner.coordination.counters import Counters
from learner.coordination.groups import Group, Out
from learner.coordination.heldout_round import HeldoutRound

COORDINATOR = "coordinator"
"""Where this is in the ledger of a checkpoint, beside the learner's totals."""
LEDGER_FORMAT = 5
_LEASES_COUNTED = 4
"""The format before the journal: of leases that were out it had the number alone."""
_ONE_CURSOR = 3
"""The format before training could draw from several sources; it had one ``cursor``."""


def save_ledger(coordinator: Coordinator, *, journal: int = 0) -> bytes:
    """The ledger of a coordinator that is not being changed meanwhile.

    ``journal`` is the serial of the first record of the journal that is not in it.
    """
    groups, counters = coordinator.groups, coordinator.counters
    evaluations = coordinator.evaluations
    return bytes(
        msgpack.packb(
            {
                "format": LEDGER_FORMAT,
                "schema": SCHEMA_VERSION,
                "journal": journal,
                "cursors": groups.order.cursors,
                "next_group": groups.next_group,
                "next_evaluation": evaluations.next_number,
                "evaluation": _save_evaluation(evaluations.current),
                "evaluated_version": _version(evaluations.current),
                "batches_taken": groups.batches_taken,
                "started": counters.started,
                "finished": counters.finished,
                "trained": counters.trained,
                "duplicates": counters.duplicates,
                "dropped": dict(counters.dropped),
                "tokens_generated": counters.tokens_generated,
                "cells_executed": counters.cells_executed,
                "late": sorted(groups.late),
                "groups": [_save_group(g) for g in (*groups.open_groups.values(), *groups.ready)],
            }
        )
    )


def restore_ledger(coordinator: Coordinator, ledger: bytes) -> None:
    """Put a fresh coordinator into the state that ``save_ledger`` wrote; it has to ``begin`` yet.

    Raises:
        InputError: another version of l-zero wrote it, it is of other sources of tasks, or the task
            file no longer holds a task of an open group.
    """
    state = _readable(ledger)
    groups = coordinator.groups
    coordinator.evaluations.next_number = state["next_evaluation"]
    coordinator.evaluations.current = _restored_evaluation(state)
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
    groups.late = set(state["late"])
    for saved in state["groups"]:
        _restore_group(coordinator, saved)


def coordinator_part(ledger: bytes) -> bytes:
    """The coordinator's ledger in the one of the whole learner (``learner.totals``)."""
    return bytes(msgpack.unpackb(ledger)[COORDINATOR])


def journal_position(ledger: bytes) -> int:
    """The serial that ``save_ledger`` was given.

    Raises:
        InputError: another version of l-zero wrote it.
    """
    return int(_readable(ledger)["journal"])


def _readable(ledger: bytes) -> dict[str, Any]:
    """The ledger, if this version of l-zero can read it and the trajectories in it."""
    state = msgpack.unpackb(ledger, strict_map_key=False)
    if state.get("format") == _ONE_CURSOR:
        state |= {"format": _LEASES_COUNTED, "cursors": {"": state["cursor"]}}
    if state.get("format") == _LEASES_COUNTED:
        state |= {"format": LEDGER_FORMAT, "late": _names(state["late"], "late"), "journal": 0,
                  "evaluation": None}  # fmt: skip
        for group in state["groups"]:
            _name_leases(group)
    for name, ours in {"format": LEDGER_FORMAT, "schema": SCHEMA_VERSION}.items():
        if state.get(name) != ours:
            raise InputError(
                f"the checkpoint's ledger has {name} {state.get(name)}, this version of l-zero "
                f"reads {ours}; resume with the version that wrote it, or begin a new run from "
                "the weights: set model.path to the folder 'hf' inside the checkpoint"
            )
    return dict(state)


def _names(count: int, prefix: str) -> list[str]:
    """Stand for leases whose ids are not known; nobody can bring anything for them."""
    return [f"{prefix}-{number}" for number in range(count)]


def _name_leases(group: dict[str, Any]) -> None:
    """An earlier ledger counted the members that were out among those that wait, at the end."""
    count = group["leased"]
    names = _names(count, str(group["number"]))
    out = group["waiting"][len(group["waiting"]) - count :]
    group["leased"] = {name: [index, ""] for name, index in zip(names, out, strict=True)}
    group["waiting"] = group["waiting"][: len(group["waiting"]) - count]


def _save_evaluation(evaluation: HeldoutRound | None) -> list[list[bytes]] | None:
    """What an evaluation under way has brought; None where there is none."""
    return None if evaluation is None else _save_trajectories(evaluation.finished)


def _version(evaluation: HeldoutRound | None) -> int:
    return 0 if evaluation is None else evaluation.version


def _restored_evaluation(state: dict[str, Any]) -> HeldoutRound | None:
    if state["evaluation"] is None:
        return None
    finished = _trajectories(state["evaluation"])
    version = state.get("evaluated_version", 0)
    return HeldoutRound.earlier(state["next_evaluation"] - 1, finished, version=version)


def _save_trajectories(trajectories: Iterable[Trajectory]) -> list[list[bytes]]:
    return [[bytes(frame) for frame in encode(trajectory)] for trajectory in trajectories]


def _trajectories(saved: Iterable[list[bytes]]) -> list[Trajectory]:
    records = map(decode, saved)
    return [record for record in records if isinstance(record, Trajectory)]


def _save_group(group: Group) -> dict[str, Any]:
    return {
        "number": group.number,
        "task_id": group.task.task_id,
        "size": group.size,
        "waiting": group.waiting,
        "leased": {i: [out.sample_index, out.session] for i, out in group.leased.items()},
        "attempts": sorted(group.attempts.items()),
        "failures": sorted(group.failures.items()),
        "num_bytes": group.num_bytes,
        "finished": _save_trajectories(group.finished),
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
    group.waiting = list(saved["waiting"])
    group.leased = {lease_id: Out(*out) for lease_id, out in saved["leased"].items()}
    group.attempts = dict(saved["attempts"])
    group.failures = dict(saved["failures"])
    group.num_bytes = saved["num_bytes"]
    group.finished = _trajectories(saved["finished"])
    if group.complete:
        groups.ready.append(group)
    else:
        groups.open_groups[group.group_id] = group
