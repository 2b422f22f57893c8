"""A rank of a replay: ``python -m learner.replay.main --task FILE``, or several under torchrun.

consumes   a journal, a checkpoint, the initial weights: files alone
produces   records of every step and comparisons of weights, in the file that the task names
waits for  the other ranks, in collectives
unblocked by  the other ranks

All configurations are trained side by side, so that each batch is read once.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from common.config import Config
from common.config_file import load_config
from common.errors import LZeroError
from common.telemetry.log_lines import configure_logging
from common.whole_file import write_whole
from common.wire.records import Trajectory
from learner.checkpoints.files import LEDGER, step_of
from learner.engine.mesh import Rank, training_processes
from learner.failures import RankGoneError, named
from learner.replay.logprobs import scorer_of
from learner.replay.recording import Recording
from learner.replay.task import (
    ReplayResult,
    ReplayTask,
    TensorsCompared,
    TrialResult,
    load_task,
    save,
)
from learner.replay.trial import Retraining
from learner.replay.weights import compare_trained, compare_with_checkpoint

log = logging.getLogger("learner.replay.main")


class Replaying:
    """The trials of a task on one rank, and what rank 0 notes meanwhile."""

    def __init__(self, task: ReplayTask, configs: Sequence[Config], rank: Rank) -> None:
        """Load everything; every rank must call it."""
        self._task, self._own, self._rank = task, configs[0], rank
        checkpoint = Path(task.checkpoint) if task.checkpoint else None
        self._trials = [Retraining(config, rank, checkpoint=checkpoint) for config in configs]
        self._recording: Recording | None = None
        if rank.is_first:
            ledger = None if checkpoint is None else (checkpoint / LEDGER).read_bytes()
            self._recording = Recording(
                self._own, Path(task.journal), serial=task.serial, ledger=ledger
            )
        self._kept = {step_of(Path(path)): Path(path) for path in task.kept}
        self._compared: list[TensorsCompared] = []
        self._batches: list[tuple[str, ...]] = []
        self._last: Sequence[Trajectory] | None = None

    def run(self) -> ReplayResult:
        """Train all steps; what came of it, complete on rank 0."""
        for version in range(self._task.done, self._task.last):
            self._step(version)
        scorer = scorer_of(self._last, self._own, self._rank)
        first = self._trials[0]
        trials = tuple(
            TrialResult(
                records=tuple(trial.records),
                weights=compare_trained(
                    first.trained, trial.trained, self._rank, step=self._task.last
                ),
                logprobs=scorer.score(trial.trained),
            )
            for trial in self._trials
        )
        for trial, out in zip(self._trials, self._task.outs, strict=False):
            trial.write(Path(out))
        return ReplayResult(
            ranks=self._rank.count,
            batches=tuple(self._batches),
            trials=trials,
            kept=tuple(self._compared),
        )

    def _step(self, version: int) -> None:
        counters = None
        if self._recording is not None:
            self._last = self._recording.batch(version)
            self._batches.append(tuple(t.trajectory_id for t in self._last))
            counters = self._recording.counters
        for trial in self._trials:
            trial.step(self._last, counters, version=version)
        if kept := self._kept.get(version + 1):
            own = self._trials[0].trained
            self._compared.append(compare_with_checkpoint(own, kept, self._rank))
        if self._rank.is_first:
            log.info("played step=%d of=%d", version + 1, self._task.last)


def replay(task: ReplayTask) -> None:
    """Train what ``task`` says, and leave its result.

    Raises:
        LZeroError: something cannot be used.
    """
    configs = [load_config(Path(path)) for path in task.configs]
    learner = configs[0].learner
    torch.set_num_threads(max(1, learner.threads))
    with training_processes(
        replicas=learner.replicas,
        context_parallel=learner.context_parallel,
        first_gpu=learner.first_gpu,
    ) as rank:
        result = Replaying(task, configs, rank).run()
        if rank.is_first:
            save(result, Path(task.result))


def main() -> int:
    """Parse arguments and play; 2 for an expected error, which is in the task's ``refusal``."""
    parser = argparse.ArgumentParser(prog="learner.replay.main", description=__doc__)
    parser.add_argument("--task", type=Path, required=True, help="what to train again")
    task = load_task(parser.parse_args().task)
    configure_logging("replay")
    try:
        replay(task)
    except LZeroError as error:
        return _refused(task, error)
    except (RuntimeError, MemoryError) as error:
        if (failure := named(error)) is None:
            raise
        return _refused(task, failure)
    return 0


def _refused(task: ReplayTask, error: LZeroError) -> int:
    """Say it in the log, and to whoever started the ranks: the first one's word counts."""
    log.error("%s", error)
    if isinstance(error, RankGoneError):
        return 2
    if not Path(task.refusal).exists():
        write_whole(Path(task.refusal), str(error))
    return 2


if __name__ == "__main__":
    sys.exit(main())
