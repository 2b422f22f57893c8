"""Puts together what only rank 0 of the learner has: coordinator, journal, servers, records."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from common.config import Config, EvaluationSuite
from common.config.evaluation import DURING_PER_FAMILY
from common.config_file import tables_of
from common.evaluation import family_of, first_of_each_family
from common.join_file import JOIN_FILE, write_join_file
from common.json_output import json_text
from common.places import JOIN, LEARNER, Member, Role, RunPlan
from common.plan_file import (
    own_keys,
    tell_coordinator,
    tell_joined,
    tell_leaving,
    told_coordinator,
    told_joined,
    told_leaving,
)
from common.run_status import STATUS
from common.stopping import StopRequest
from common.task_rules import task_rules, training_files
from common.tasks import read_sources, read_tasks
from common.telemetry.process_totals import add_actor_totals
from common.telemetry.writers import metric_writers
from common.wire.hosting import Guest
from common.wire.records import Task, Trajectory
from common.wire.sockets import Door, Wire
from learner.checkpoints.files import oldest_step
from learner.coordination.coordinator import Coordinator
from learner.coordination.depth import Depth
from learner.coordination.groups import Order, SignalFilter
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.ledger import journal_position, restore_ledger
from learner.coordination.membership import Membership
from learner.coordination.mixed_order import MixedOrder, WeightedTasks, order_of_families
from learner.coordination.newcomers import Newcomers, Terms
from learner.coordination.replay import Replay
from learner.coordination.store_process import StoreProcess
from learner.coordination.trajectory_checks import ModelLimits
from learner.engine.tokenizer import TOKENIZER, load_tokenizer
from learner.head import Head
from learner.journal.segments import begin_journal
from learner.journal.writer import JournalWriter
from learner.record import BatchLog
from learner.status import StatusWriter
from learner.weights.background import BackgroundPublisher
from learner.weights.channel import WORKER_LIMITS
from learner.weights.publisher import WeightPublisher
from learner.weights.verifier import question_prompts

MIB = 1 << 20
FILTER_PATIENCE = 4
"""Batches' worth of groups without signal in a row after which a batch is taken as it is."""


@contextmanager
def rank_zero(
    config: Config,
    plan: RunPlan,
    folder: Path,
    *,
    vocabulary: int,
    ledger: bytes | None,
    version: int,
    resume: bool,
    tell: Callable[[str], None],
    scored: Callable[[int, float], None],
    stop: StopRequest,
) -> Iterator[Head]:
    """What only rank 0 has; tells where the coordinator listens once it does."""
    tasks = read_sources(training_files(config), partial(read_tasks, rules=task_rules(config)))
    during = config.evaluation.during
    heldout = _during(config, during) if during else []
    families = _groups_in_metrics(tasks) | {task.task_id: family_of(task) for task in heldout}
    coordinator = _coordinator(config, tasks, vocabulary, tell=tell)
    since = journal_position(ledger) if ledger is not None else 0
    found = begin_journal(folder / "journal", since=since, resume=resume, tell=tell)
    if ledger is not None:
        restore_ledger(coordinator, ledger)
    replay = Replay(coordinator, found.places, serial=since) if resume else None
    store = StoreProcess(folder / "trajectories", limit_bytes=config.run.trajectories_mib * MIB)
    batches = BatchLog(folder / "batches.jsonl", after_step=version)
    writers = metric_writers(config.run, folder, dataclasses.asdict(config), after_step=version)
    wire = Wire(own_keys(plan, LEARNER))
    joined = told_joined(plan)
    servers = _known((*plan.members, *joined), "policy-server")
    fetching = wire.listen("weights", plan.weights, servers, WORKER_LIMITS)
    guests = guests_among((*plan.members, *joined))
    leaving = told_leaving(plan)
    staying = [place for place in plan.servers if place.name not in leaving]
    membership = Membership(staying, guests=guests)
    weights = WeightPublisher(
        membership,
        fetching,
        wire,
        return_s=config.learner.batch_timeout_s,
        was_taken=version > 0 or (replay is not None and replay.batches > 0),
        give_up=lambda: stop.asked,
    )
    weights.start()
    try:
        speaking = _known((*plan.members, *joined), "actor", "newcomer")
        speaking |= _known(joined, "policy-server")
        place = told_coordinator(plan) or plan.coordinator  # where actors look for an earlier one
        door = wire.listen("coordinator", place, speaking, ACTOR_LIMITS)
        terms = terms_of(config, plan, coordinator=door, weights=fetching, membership=membership)
        with (
            JournalWriter(
                folder / "journal",
                first_serial=found.next_serial,
                earlier=found.segments,
                sync=config.run.journal == "sync",
                keep=config.run.keep_journal,
                tell=tell,
            ) as journal,
            Intake(
                coordinator,
                store,
                door,
                version=version,
                journal=journal,
                replay=replay,
                membership=membership,
                newcomers=Newcomers(terms, plan.members, joined, leaving=leaving),
                tell=tell,
                add_totals=partial(add_actor_totals, folder=folder / "actors"),
            ) as intake,
            StatusWriter(
                folder / STATUS,
                intake,
                membership,
                steps=config.run.steps,
                heartbeat_s=config.transport.heartbeat_s,
            ),
            BackgroundPublisher(weights, acknowledge=intake.acknowledge) as publisher,
        ):
            tell_coordinator(plan, door.address)
            write_join_file(folder / JOIN_FILE, door.address, own_keys(plan, JOIN))

            def family(trajectory: Trajectory) -> str:
                return families.get(trajectory.task_id, "all")

            yield Head(
                intake=intake,
                publisher=publisher,
                writers=writers,
                family_of=family,
                heldout=heldout,
                heldout_temperature=during.temperature if during else 1.0,
                batches=batches,
                replay=replay,
                oldest_checkpoint=partial(oldest_step, folder / "checkpoints"),
                scored=scored,
                first_prompts=_first_prompts(config, tasks),
                membership=membership,
                wire=wire,
            )
    finally:
        weights.stop()
        wire.close()
        batches.close()
        for writer in writers:
            writer.close()


def _first_prompts(config: Config, tasks: Mapping[str, Sequence[Task]]) -> list[list[int]]:
    """What the servers are compared on before there is a batch."""
    tokenizer = load_tokenizer(Path(config.model.path) / TOKENIZER)

    def encode(text: str) -> list[int]:
        whole = text.encode("utf-8", "replace").decode()  # a lone surrogate is no text
        return list(tokenizer.encode(whole, add_special_tokens=False).ids)

    return question_prompts(
        [task.question for some in tasks.values() for task in some],
        encode,
        max_context=config.model.max_context,
    )


def _known(members: Sequence[Member], *roles: Role) -> dict[str, str]:
    """The members of those roles: public key to name."""
    return {member.key: member.name for member in members if member.role in roles}


def guests_among(members: Sequence[Member]) -> list[Guest]:
    """Who of them asks policy servers, beside the learner."""
    return [Guest(name=m.name, key=m.key) for m in members if m.role in ("actor", "evaluation")]


def terms_of(
    config: Config, plan: RunPlan, *, coordinator: Door, weights: Door, membership: Membership
) -> Terms:
    """What a newcomer is told, and which doors are opened to it."""

    def let_in(member: Member) -> None:
        coordinator.admit(member.key, member.name)
        if member.role == "policy-server":
            weights.admit(member.key, member.name)
        for guest in guests_among([member]):
            membership.admit(guest)

    return Terms(
        config=json_text(tables_of(config)),
        weights=weights.address,
        finish_s=config.lease_timeout_s,
        keep=partial(tell_joined, plan),
        keep_leaving=partial(tell_leaving, plan),
        let_in=let_in,
    )


def _coordinator(
    config: Config,
    tasks: Mapping[str, Sequence[Task]],
    vocabulary: int,
    *,
    tell: Callable[[str], None],
) -> Coordinator:
    return Coordinator(
        _order(config, tasks),
        groups_per_batch=config.learner.groups,
        group_size=config.learner.group_size,
        max_staleness=config.learner.max_staleness,
        depth=_depth(config),
        temperature=config.agent.temperature,
        total_batches=config.run.steps,
        max_buffered_bytes=config.transport.buffer_mib * MIB,
        signal_filter=_signal_filter(config),
        group_timeout_s=config.learner.group_timeout_s,
        lease_timeout_s=config.lease_timeout_s,
        silence_s=config.transport.silence_s,
        limits=ModelLimits(vocabulary=vocabulary, max_context=config.model.max_context),
        tell=tell,
    )


def _depth(config: Config) -> Depth:
    learner = config.learner
    return Depth(
        groups_per_batch=learner.groups,
        max_staleness=learner.max_staleness,
        batches=learner.depth or None,
    )


def _order(config: Config, tasks: Mapping[str, Sequence[Task]]) -> Order:
    if not config.tasks.sources:
        return order_of_families(tasks[""], seed=config.run.seed)
    sources = [WeightedTasks(s.name, tasks[s.name], s.weight) for s in config.tasks.sources]
    return MixedOrder(sources, seed=config.run.seed)


def _groups_in_metrics(tasks: Mapping[str, Sequence[Task]]) -> dict[str, str]:
    """What success is counted by, for each training task: its source, or with one its family."""
    return {
        task.task_id: source or family_of(task) for source, some in tasks.items() for task in some
    }


def _signal_filter(config: Config) -> SignalFilter | None:
    learner = config.learner
    if learner.filter_groups == "none":
        return None
    return SignalFilter(
        discount=config.objective.discount, patience=FILTER_PATIENCE * learner.groups
    )


def _during(config: Config, suite: EvaluationSuite) -> list[Task]:
    """The questions that a suite asks while training."""
    few = min(suite.per_family or DURING_PER_FAMILY, DURING_PER_FAMILY)
    return first_of_each_family(_read(config, suite.tasks), few)


def _read(config: Config, path: str) -> list[Task]:
    return read_tasks(Path(path), rules=task_rules(config))
