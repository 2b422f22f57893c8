"""Saves checkpoints beside training.

A save copies the rank's part of the state into memory kept for this purpose and returns; a process
of the rank's own writes it to the disk (``learner.checkpoints.writer``). One save is under way at
most: the next one waits for it, and raises what went wrong with it, on all ranks alike.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
import torch.distributed as dist
from torch import nn

from common.errors import LZeroError
from learner.checkpoints.buffer import SnapshotBuffer
from learner.checkpoints.files import (
    FORMAT_VERSION,
    PARTIAL,
    STATE,
    checkpoint_name,
    remove_leftovers,
)
from learner.checkpoints.job import Answer, FinishJob, Job, answer_of_failure
from learner.checkpoints.number_formats import FORMAT_OF_DTYPE
from learner.checkpoints.process import WriterProcess
from learner.checkpoints.retention import Keep
from learner.checkpoints.shard_header import describe_pieces, make_header
from learner.checkpoints.state import (
    Progress,
    Trainee,
    Trainer,
    adapter_scales,
    describe_model,
    live_state,
    own_pieces,
    random_state,
    size_of_state,
)
from learner.engine.agreement import broadcast_number, gather_texts
from learner.engine.mesh import Rank

log = logging.getLogger(__name__)

LEAVE_S = 60.0
"""How long a rank that ends with an error waits for the save under way."""


class Checkpointer:
    """Saves the checkpoints of a run into one folder; the same object on every rank.

    As a context manager it waits at the end for the save under way.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        optimizer: Trainer,
        rank: Rank,
        *,
        model_source: Path,
        export_dtype: torch.dtype,
        keep: int,
        keep_every: int = 0,
        scores: Callable[[], Mapping[int, float]] = dict,
        background: bool = True,
        others: Mapping[str, Trainee] | None = None,
    ) -> None:
        """Nothing is written yet.

        Args:
            folder: of all checkpoints of the run, on a file system all ranks share.
            model: sharded.
            optimizer: of this model.
            rank: this process.
            model_source: Hugging Face folder the model was loaded from.
            export_dtype: type of the weights in ``hf/``.
            keep: newest checkpoints that stay; at least 1.
            keep_every: one checkpoint in so many steps stays; 0 for none (``retention``).
            scores: gives the held-out scores by step; the best stays.
            background: whether ``save`` returns before the checkpoint is on the disk.
            others: models trained beside it, by name.
        """
        self._folder = folder
        self._model = model
        self._optimizer = optimizer
        self._rank = rank
        self._model_source = model_source
        self._export_format = FORMAT_OF_DTYPE[str(export_dtype).removeprefix("torch.")]
        self._keep = keep
        self._keep_every = keep_every
        self._scores = scores
        self._background = background
        self._others = dict(others or {})
        self._buffer = SnapshotBuffer(pinned=rank.device.type == "cuda")
        self._writer = WriterProcess(self._buffer.descriptor, folder)
        self._under_way: Path | None = None
        self._failed = Answer()
        self._began = 0.0

    def __enter__(self) -> Self:
        """Get memory and the writer ready, so that the first save costs what later ones do."""
        models = [self._model, *(other.model for other in self._others.values())]
        self._buffer.reserve(sum(size_of_state(model) for model in models))
        self._writer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the save under way, a limited time if an error is on its way out."""
        try:
            if kind is None:
                self.finish()
            elif self._writer.busy and self._writer.wait(LEAVE_S) is None:
                log.warning("checkpoint given up path=%s after=%.0f", self._under_way, LEAVE_S)
        except LZeroError as late:
            if kind is None:
                raise
            log.error("%s", late)
        finally:
            self._writer.kill()
            self._buffer.close()

    @property
    def writer_pid(self) -> int | None:
        """Process id of this rank's writer, while it runs."""
        return self._writer.pid

    def save(self, progress: Progress) -> Path:
        """Take a copy of the state and begin to write it; every rank must call it.

        Args:
            progress: read on rank 0 only.

        Returns:
            The checkpoint's folder, which is there when ``finish`` has returned.

        Raises:
            LZeroError: the save before failed; on all ranks alike.
        """
        self.finish()
        self._began = time.monotonic()
        final = self._folder / checkpoint_name(broadcast_number(progress.step))
        partial = final.with_name(final.name + PARTIAL)
        self._failed = self._make_room(partial) if self._rank.is_first else Answer()
        job = self._snapshot(progress, partial, final)
        dist.barrier()
        self._under_way = final
        if not self._failed.error:
            self._submit(job)
        log.debug("checkpoint begun path=%s copy=%.3f", final, time.monotonic() - self._began)
        if not self._background:
            self.finish()
        return final

    def is_busy(self) -> bool:
        """Whether ``finish`` would wait for this rank; a failure elsewhere is not known here."""
        return not self._failed.error and self._writer.is_writing()

    def finish(self) -> None:
        """Wait until the save under way is a checkpoint; every rank must call it.

        Raises:
            LZeroError: it failed, with the cause; on all ranks alike. The checkpoint before is
                still there.
        """
        if self._under_way is None:
            return
        final, self._under_way = self._under_way, None
        # The writer of the first rank waits for the others' parts, so the rank asks whether one
        # failed before it waits for its own writer.
        answer = self._failed if self._rank.is_first else self._outcome()
        faults = _faults(answer)
        if self._rank.is_first and not faults:
            answer = self._outcome()
        elif self._rank.is_first:
            self._writer.kill()
        faults = faults or _faults(answer if self._rank.is_first else Answer())
        if faults:
            raise faults[0].as_error(
                f"checkpoint '{final}' could not be written, those before it are kept"
            )
        if self._rank.is_first:
            seconds = time.monotonic() - self._began
            log.info("checkpoint written path=%s seconds=%.1f", final, seconds)

    def _make_room(self, partial: Path) -> Answer:
        """Make the folder of a save, where no other save is under way."""
        try:
            remove_leftovers(self._folder)
            (partial / STATE).mkdir(parents=True)
        except OSError as error:
            return answer_of_failure(error)
        return Answer()

    def _submit(self, job: Job) -> None:
        """Give the writer its job; a failure is kept for ``finish``, where all ranks hear of it."""
        try:
            self._writer.submit(job)
        except LZeroError as error:
            self._failed = answer_of_failure(error)

    def _outcome(self) -> Answer:
        if self._failed.error:
            return self._failed
        try:
            answer = self._writer.wait()
        except LZeroError as error:
            return answer_of_failure(error)
        return answer or Answer()

    def _snapshot(self, progress: Progress, partial: Path, final: Path) -> Job:
        policy = live_state(self._model, self._optimizer.parts)
        tensors = dict(policy.tensors)
        for name, other in self._others.items():
            state = live_state(other.model, other.trainer.parts, prefix=f"{name}.")
            tensors |= state.tensors
        pieces = own_pieces(tensors | random_state(), is_first=self._rank.is_first)
        blocks = [piece for piece, _ in pieces]
        header = make_header(blocks, describe_pieces(blocks))[8:].decode()
        ledger = progress.ledger if self._rank.is_first else b""
        finish = FinishJob(
            final=str(final.resolve()),
            keep=Keep(newest=self._keep, every=self._keep_every, scores=self._scores()),
            description=self._description(progress),
            ledger_bytes=len(ledger),
            model_source=str(self._model_source.resolve()),
            export_format=self._export_format,
        )
        return Job(
            partial=str(partial.resolve()),
            rank=self._rank.index,
            ranks=self._rank.count,
            header=header,
            data_bytes=self._buffer.fill(pieces, ledger),
            finish=finish if self._rank.is_first else None,
        )

    def _description(self, progress: Progress) -> str:
        description = {
            "format_version": FORMAT_VERSION,
            "step": progress.step,
            "weight_version": progress.weight_version,
            "ranks": self._rank.count,
            "optimizer": self._optimizer.counters(),
            "model": describe_model(self._model),
            "adapters": adapter_scales(self._model),
            "others": {name: other.trainer.counters() for name, other in self._others.items()},
        }
        return json.dumps(description, indent=2, sort_keys=True) + "\n"


def _faults(mine: Answer) -> list[Answer]:
    """The failures of all ranks, the first rank's first; every rank must call it."""
    answers = [Answer(**json.loads(line)) for line in gather_texts(mine.as_line())]
    return [answer for answer in answers if answer.error]
