"""A learner rank: ``python -m learner.main``, or several of it under torchrun."""

import argparse
import dataclasses
import logging
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.distributed import is_torchelastic_launched

from common.config import Config
from common.config_file import load_config
from common.errors import LZeroError
from common.places import LEARNER, RunPlan
from common.plan_file import (
    LastWord,
    load_plan,
    tell_begun,
    tell_ending,
    tell_stopped,
    told_begun,
    told_ending,
)
from common.stopping import EXIT_RESUME, StopRequest, stop_request
from common.telemetry.alert_lines import append_alert
from common.telemetry.log_lines import configure_logging
from common.telemetry.process_totals import write_totals
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.resume import load_newest
from learner.checkpoints.schedule import SaveSchedule
from learner.checkpoints.scores import HeldOutScores
from learner.engine.agreement import broadcast_number
from learner.engine.mesh import Rank, training_processes
from learner.engine.sharding import seed_everything
from learner.failures import RankGoneError, named
from learner.head import Head
from learner.loop import TrainingLoop
from learner.profiling import StepProfiler, profiled_steps
from learner.rank_zero import rank_zero
from learner.saving import Saving
from learner.totals import Totals, learner_totals, unpack_ledger
from learner.trained import load_trained, train_step
from learner.weights.verifier import ParityVerifier

log = logging.getLogger(__name__)

DRAIN_TIMEOUT_S = 15.0


def train(
    config: Config, plan: RunPlan, folder: Path, rank: Rank, *, resume: bool, stop: StopRequest
) -> bool:
    """Build everything one rank needs and run the loop; whether it came to its end."""
    torch.set_num_threads(max(1, config.learner.threads))
    seed_everything(config.run.seed)
    resume = goes_on(plan, rank, resume=resume)
    trained = load_trained(config, rank)
    model, optimizer = trained.model, trained.optimizer
    vocabulary = int(model.config.vocab_size)
    progress = None
    if resume:
        progress = load_newest(
            folder / "checkpoints",
            model,
            optimizer,
            rank,
            model_source=Path(config.model.path),
            others=trained.beside,
        )
    ledger, totals = unpack_ledger(progress.ledger) if progress else (None, Totals())
    first_step = progress.step if progress else 0
    scores = HeldOutScores(folder / "checkpoints")
    tell = partial(append_alert, folder / "alerts.jsonl")
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
                keep_every=config.learner.checkpoints_kept_every,
                scores=lambda: scores.by_step,
                background=True,
                others=trained.beside,
            )
        )
        head: Head | None = None
        if rank.is_first:
            wiring = rank_zero(
                config, plan, folder,
                vocabulary=vocabulary, ledger=ledger, version=first_step, resume=resume,
                tell=tell, scored=scores.add, stop=stop,
            )  # fmt: skip
            head = stack.enter_context(wiring)
        learner = TrainingLoop(
            config,
            model=model,
            vocabulary=vocabulary,
            train_step=train_step(config, trained, rank),
            verifier=ParityVerifier(model, rank, tolerance=config.mismatch_tolerance),
            saving=Saving(
                saver=saver,
                schedule=_schedule(config) if rank.is_first else None,
                stop=stop,
                tell=tell,
                failed=totals.failed_saves,
            ),
            head=head,
            first_step=first_step,
            totals=totals,
            profiler=_profiler(config, folder, model, rank, first_step=first_step),
        )
        if not learner.run():
            return False
        saver.finish()
        if head is not None:
            head.intake.forget_before(head.oldest_checkpoint())
            intake = head.intake
            left = learner_totals(
                config, learner.totals, intake.counters(),
                depth=intake.depth(), credit=intake.credit_share(),
            )  # fmt: skip
            write_totals(left, folder / "learner.json")
            head.intake.drain("training is complete", timeout_s=DRAIN_TIMEOUT_S)
        return True


def goes_on(plan: RunPlan, rank: Rank, *, resume: bool) -> bool:
    """Whether to go on: as asked, or because a learner of this plan began before and ended.

    Whoever started it again gave it the same arguments. Rank 0 looks, and all do alike.
    """
    began = rank.is_first and told_begun(plan)
    is_later = bool(broadcast_number(int(resume or began)))
    if rank.is_first:
        tell_begun(plan)
    return is_later


def _schedule(config: Config) -> SaveSchedule:
    learner = config.learner
    return SaveSchedule(
        steps=learner.checkpoint_every, minutes=learner.checkpoint_minutes, now=time.monotonic()
    )


def _profiler(
    config: Config, folder: Path, model: nn.Module, rank: Rank, *, first_step: int
) -> StepProfiler | None:
    """What writes traces, on rank 0 and where asked for."""
    if not config.run.profile_steps or not rank.is_first:
        return None
    steps = profiled_steps(first_step + 1, config.run.steps + 1, config.run.profile_steps)
    return StepProfiler(model, folder / "profiles", steps=steps, rank=rank.index)


def main() -> int:
    """Parse arguments and train; 2 for an expected error, ``EXIT_RESUME`` if asked to stop.

    Under torchrun it is 0 then, too: any other status of a rank would be a failure there.
    """
    stop = stop_request()
    parser = argparse.ArgumentParser(prog="learner.main", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--plan", type=Path, required=True, help="plan of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--profile-steps", type=int, default=0, help="steps to trace, from the third"
    )
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.plan)
    except LZeroError as error:
        log.error("%s", error)
        return 2
    try:
        is_done = _run_rank(arguments, plan, stop)
    except LZeroError as error:
        return _failed(plan, error, is_final=True)
    except (RuntimeError, MemoryError) as error:
        if (failure := named(error)) is None:
            raise
        return _failed(plan, failure, is_final=False)
    return 0 if is_done or is_torchelastic_launched() else EXIT_RESUME


def _run_rank(arguments: argparse.Namespace, plan: RunPlan, stop: StopRequest) -> bool:
    """Join the other ranks and train; whether it came to its end."""
    if (earlier := told_ending(plan, LEARNER)) is not None and earlier.is_final:
        raise LZeroError(earlier.reason)  # torchrun starts ranks again whatever they ended of
    config = load_config(arguments.config)
    run = dataclasses.replace(config.run, profile_steps=arguments.profile_steps)
    config = dataclasses.replace(config, run=run)
    with training_processes(
        replicas=config.learner.replicas,
        context_parallel=config.learner.context_parallel,
        first_gpu=config.learner.first_gpu,
    ) as rank:
        configure_logging(f"learner{rank.index}")
        folder, resume = arguments.config.parent, arguments.resume
        is_done = train(config, plan, folder, rank, resume=resume, stop=stop)
        if not is_done and rank.is_first:
            tell_stopped(plan)
    return is_done


def _failed(plan: RunPlan, error: LZeroError, *, is_final: bool) -> int:
    """Say it in the log, and to whoever might start the learner again; the exit status."""
    log.error("%s", error)
    if not isinstance(error, RankGoneError):
        tell_ending(plan, LEARNER, LastWord(reason=str(error), is_final=is_final))
    return 2


if __name__ == "__main__":
    sys.exit(main())
