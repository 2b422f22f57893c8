"""How the coordinator is, at one moment, for whoever watches the run. Only read here."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.waits.catalogue import Part
from common.waits.records import Node, Waiting
from learner.coordination.coordinator import Coordinator
from learner.coordination.correspondence import Correspondence
from learner.coordination.counters import Counters
from learner.coordination.outstanding import ActorSeen
from learner.journal.interface import Journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """A copy: nothing of it changes any more. Times are seconds, sizes bytes.

    ``version`` is acknowledged by the servers; ``ready``, ``open`` and ``wanted`` are groups;
    ``unwritten`` records wait for the disk, ``letters`` for those.
    """

    learner_version: int
    version: int
    counters: Counters
    actors: tuple[ActorSeen, ...]
    outstanding: tuple[Waiting, ...]
    ready: int
    open: int
    wanted: int
    depth: float
    max_staleness: int
    credit: float
    buffered_bytes: int
    unwritten: int
    letters: int


def observed(
    coordinator: Coordinator, post: Correspondence, journal: Journal, wanted: Sequence[Node]
) -> Observed:
    """How it is now; ``outstanding`` is what batches and evaluations among ``wanted`` wait for."""
    now, groups = time.monotonic(), coordinator.groups
    asked = [node for node in wanted if node.part in (Part.BATCH, Part.EVALUATION)]
    return Observed(
        learner_version=post.learner_version,
        version=coordinator.version,
        counters=copy.deepcopy(coordinator.counters),
        actors=tuple(coordinator.actors(now)),
        outstanding=tuple(
            wait
            for node in asked
            for wait in coordinator.outstanding(node, now, is_asked=post.is_asked)
        ),
        ready=len(groups.ready),
        open=len(groups.open_groups),
        wanted=groups.groups_per_batch,
        depth=coordinator.depth.batches,
        max_staleness=groups.max_staleness,
        credit=coordinator.credit_share,
        buffered_bytes=groups.num_bytes,
        unwritten=journal.appended - journal.durable,
        letters=len(post.outbox),
    )
