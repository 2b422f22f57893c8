"""What the ranks of a replay are told, and what they leave: files between processes of ours."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from common.config_file import from_tables, read_tables
from common.json_output import json_text
from common.telemetry.step_record import StepRecord
from common.whole_file import write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayTask:
    """What to train again. Paths are texts, because this travels as JSON.

    Attributes:
        journal: folder of the journal.
        serial: of the first record after the state that is begun with.
        checkpoint: folder of that state; empty for the initial weights.
        done: steps that state has done.
        last: the last step to train.
        configs: files of the configurations to train with, the run's own first.
        kept: checkpoint folders to compare the first one's weights with, in order of their steps.
        outs: for each configuration a folder for its records and weights; empty for none.
        result: file for what came of it.
        refusal: file for why it cannot be done.
    """

    journal: str
    serial: int
    checkpoint: str
    done: int
    last: int
    configs: tuple[str, ...]
    kept: tuple[str, ...]
    outs: tuple[str, ...]
    result: str
    refusal: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorsCompared:
    """Weights and optimizer state beside others, bit by bit.

    Attributes:
        step: after which.
        tensors: how many there are.
        differing: names of those that differ.
    """

    step: int
    tensors: int
    differing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LastLogprobs:
    """What the weights after the last step make of the actions of the last batch.

    Attributes:
        tokens: of these actions.
        mean: log-probability of a token, nats.
        difference: mean absolute difference of a token to the run's own settings, nats.
    """

    tokens: int
    mean: float
    difference: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResult:
    """What one configuration made of the batches.

    Attributes:
        records: of every step; times and what tells of a live run are 0 or empty in them.
        weights: at the end, beside those of the first configuration.
        logprobs: at the end.
    """

    records: tuple[StepRecord, ...]
    weights: TensorsCompared
    logprobs: LastLogprobs


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayResult:
    """All of it.

    Attributes:
        ranks: that took part.
        batches: trajectory ids of every step, in their order.
        trials: one for each configuration.
        kept: the first one's weights beside the checkpoints of the run.
    """

    ranks: int
    batches: tuple[tuple[str, ...], ...]
    trials: tuple[TrialResult, ...]
    kept: tuple[TensorsCompared, ...] = field(default=())


def save(value: ReplayTask | ReplayResult, path: Path) -> None:
    """Write either as a file."""
    write_whole(path, json_text(dataclasses.asdict(value)) + "\n")


def load_task(path: Path) -> ReplayTask:
    """What ``save`` wrote."""
    return from_tables(ReplayTask, read_tables(path, called="task"), where=str(path))


def load_result(path: Path) -> ReplayResult:
    """What ``save`` wrote."""
    return from_tables(ReplayResult, read_tables(path, called="result"), where=str(path))
