"""A learner rank: ``python -m learner.main``, or several of it under torchrun."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import nn

from common.config import Config, EvaluationSuite
from common.config.evaluation import DURING_PER_FAMILY
from common.config_file import load_config
from common.errors import LZeroError
from common.evaluation import family_of, first_of_each_family
from common.places import LEARNER, Role, RunPlan
from common.plan_file import load_plan, own_keys, tell_coordinator
from common.task_rules import task_rules, training_files
from common.tasks import read_sources, read_tasks
from common.telemetry.alert_lines import append_alert
from common.telemetry.log_lines import configure_logging
from common.telemetry.process_totals import write_totals
from common.telemetry.writers import metric_writers
from common.wire.records import Task, Trajectory
from common.wire.sockets import Wire
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.resume import load_newest
from learner.checkpoints.state import Trainee
from learner.coordination.coordinator import Coordinator
from learner.coordination.groups import Order, SignalFilter
from learner.coordination.intake import ACTOR_LIMITS, Intake
from learner.coordination.ledger import restore_ledger
from learner.coordination.mixed_order import MixedOrder, WeightedTasks, order_of_families
from learner.coordination.store import TrajectoryStore
from learner.coordination.trajectory_checks import ModelLimits
from learner.engine.critic import CriticModel, load_critic
from learner.engine.mesh import Rank, training_processes
from learner.engine.optimizer import PolicyOptimizer
from learner.engine.policy import load_policy
from learner.engine.reference import ReferenceModel, load_reference
from learner.engine.sharding import seed_everything
from learner.engine.tokenizer import TOKENIZER, load_tokenizer
from learner.loop import Head, TrainingLoop
from learner.profiling import StepProfiler, profiled_steps
from learner.record import BatchLog
from learner.step.train_step import TrainStep
from learner.totals import Totals, learner_totals, unpack_ledger
from learner.weights.background import BackgroundPublisher
from learner.weights.channel import WORKER_LIMITS
from learner.weights.publisher import WeightPublisher
from learner.weights.verifier import ParityVerifier, question_prompts

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 15.0
MIB = 1 << 20
FILTER_PATIENCE = 4
"""Batches' worth of groups without signal in a row after which a batch is taken as it is."""


def train(config: Config, plan: RunPlan, folder: Path, rank: Rank, *, resume: bool) -> None:
    """Build everything one rank needs and run the loop to its end."""
    torch.set_num_threads(max(1, config.learner.threads))
    seed_everything(config.run.seed)
    model = load_policy(config, rank)
    vocabulary = int(model.config.vocab_size)
    updates = config.run.steps * config.learner.updates_per_batch
    optimizer = PolicyOptimizer(model, config.learner, steps=updates)
    critic = _critic(config, rank)
    progress = None
    if resume:
        progress = load_newest(
            folder / "checkpoints",
            model,
            optimizer,
            rank,
            model_source=Path(config.model.path),
            others=_beside(critic),
        )
    ledger, totals = unpack_ledger(progress.ledger) if progress else (None, Totals())
    first_step = progress.step if progress else 0
    with ExitStack() as stack:
        saver = stack.enter_context(
            Checkpointer(
                folder / "checkpoints",
                model,
                optimizer,
                rank,
                model_source=Path(config.model.path),
                export_dtype=getattr(torch, config.model.compute_dtype),
                keep=config.learner.checkpoints_kept,
                background=True,
                others=_beside(critic),
            )
        )
        head: Head | None = None
        if rank.is_first:
            wiring = _head(
                config, plan, folder,
                vocabulary=vocabulary, ledger=ledger, version=first_step,
            )  # fmt: skip
            head = stack.enter_context(wiring)
        learner = TrainingLoop(
            config,
            model=model,
            vocabulary=vocabulary,
            rank=rank,
            train_step=TrainStep(
                model,
                optimizer,
                rank,
                config=config.learner,
                objective=config.objective,
                temperature=config.agent.temperature,
                reference=_reference(config, rank),
                critic=critic,
            ),
            verifier=ParityVerifier(model, rank, tolerance=config.mismatch_tolerance),
            saver=saver,
            head=head,
            first_step=first_step,
            totals=totals,
            profiler=_profiler(config, folder, model, rank, first_step=first_step),
        )
        learner.run()
        saver.finish()
        if head is not None:
            left = learner_totals(config, learner.totals, head.intake.counters())
            write_totals(left, folder / "learner.json")
            head.intake.drain("training is complete", timeout_s=DRAIN_TIMEOUT_S)


def _beside(critic: CriticModel | None) -> dict[str, Trainee]:
    """What a checkpoint holds beside the policy."""
    return {} if critic is None else {"critic": Trainee(critic.model, critic.optimizer)}


def _profiler(
    config: Config, folder: Path, model: nn.Module, rank: Rank, *, first_step: int
) -> StepProfiler | None:
    """What writes traces, on rank 0 and where asked for."""
    if not config.run.profile_steps or not rank.is_first:
        return None
    steps = profiled_steps(first_step + 1, config.run.steps + 1, config.run.profile_steps)
    return StepProfiler(model, folder / "profiles", steps=steps, rank=rank.index)


def _reference(config: Config, rank: Rank) -> ReferenceModel | None:
    """The model that the run started from, where a KL term asks for it."""
    if not config.objective.kl_reference:
        return None
    return load_reference(
        config.model.path,
        rank,
        compute_dtype=getattr(torch, config.model.compute_dtype),
        temperature=config.agent.temperature,
        cpu_offload=config.learner.cpu_offload,
    )


def _critic(config: Config, rank: Rank) -> CriticModel | None:
    """The value model, where advantages come from one."""
    if config.objective.advantage != "gae":
        return None
    return load_critic(
        config.model.path,
        rank,
        config=config.objective.gae,
        learner=config.learner,
        gamma=config.objective.discount,
        compute_dtype=getattr(torch, config.model.compute_dtype),
    )


@contextmanager
def _head(
    config: Config,
    plan: RunPlan,
    folder: Path,
    *,
    vocabulary: int,
    ledger: bytes | None,
    version: int,
) -> Iterator[Head]:
    """What only rank 0 has; tells where the coordinator listens once it does."""
    tasks = read_sources(training_files(config), partial(read_tasks, rules=task_rules(config)))
    during = config.evaluation.during
    heldout = _during(config, during) if during else []
    families = _groups_in_metrics(tasks) | {task.task_id: family_of(task) for task in heldout}
    coordinator = _coordinator(
        config, tasks, vocabulary, tell=partial(append_alert, folder / "alerts.jsonl")
    )
    if ledger is not None:
        restore_ledger(coordinator, ledger)
    store = TrajectoryStore(folder / "trajectories", limit_bytes=config.run.trajectories_mib * MIB)
    batches = BatchLog(folder / "batches.jsonl", after_step=version)
    writers = metric_writers(config.run, folder, dataclasses.asdict(config), after_step=version)
    wire = Wire(own_keys(plan, LEARNER))
    fetching = wire.listen("weights", plan.weights, _known(plan, "policy-server"), WORKER_LIMITS)
    weights = WeightPublisher(plan.servers, fetching)
    weights.start()
    try:
        door = wire.listen("coordinator", plan.coordinator, _known(plan, "actor"), ACTOR_LIMITS)
        with (
            Intake(coordinator, store, door, version=version) as intake,
            BackgroundPublisher(weights, acknowledge=intake.acknowledge) as publisher,
        ):
            tell_coordinator(plan, door.address)

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
                first_prompts=_first_prompts(config, tasks),
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


def _known(plan: RunPlan, role: Role) -> dict[str, str]:
    """The members of that role: public key to name."""
    return {member.key: member.name for member in plan.members if member.role == role}


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


def main() -> int:
    """Parse arguments and train; 2 for an expected error."""
    parser = argparse.ArgumentParser(prog="learner.main", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--plan", type=Path, required=True, help="plan of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--profile-steps", type=int, default=0, help="steps to trace, from the third"
    )
    arguments = parser.parse_args()
    try:
        config, plan = load_config(arguments.config), load_plan(arguments.plan)
        run = dataclasses.replace(config.run, profile_steps=arguments.profile_steps)
        config = dataclasses.replace(config, run=run)
        with training_processes(
            replicas=config.learner.replicas,
            context_parallel=config.learner.context_parallel,
            first_gpu=config.learner.first_gpu,
        ) as rank:
            configure_logging(f"learner{rank.index}")
            train(config, plan, arguments.config.parent, rank, resume=arguments.resume)
    except LZeroError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
