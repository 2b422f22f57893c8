"""What a learner rank asks of its checkpoint writer, and what it hears back: lines of JSON."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from common.errors import InputError, LZeroError, MachineError
from learner.checkpoints.retention import Keep


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishJob:
    """What the writer of rank 0 does beside its part, to make the folder a checkpoint.

    Attributes:
        final: the folder's name when it is whole.
        keep: which checkpoints stay.
        description: text of ``checkpoint.json``.
        ledger_bytes: size of the ledger, which follows the data in the buffer.
        model_source: folder of the config and tokenizer that go beside the weights.
        export_format: of the weights in ``hf/``: F32, BF16 or F16.
        wait_s: longest wait for the parts of the other ranks.
    """

    final: str
    keep: Keep
    description: str
    ledger_bytes: int
    model_source: str
    export_format: str
    wait_s: float = 1800.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One save: write this rank's part of the state.

    Attributes:
        partial: the folder that is being filled.
        rank: whose part it is.
        ranks: how many parts there will be.
        header: of the safetensors file, without the length before it.
        data_bytes: size of the data at the begin of the buffer.
        finish: on rank 0 only.
    """

    partial: str
    rank: int
    ranks: int
    header: str
    data_bytes: int
    finish: FinishJob | None = None

    def as_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def job_from_line(line: str) -> Job:
    """The job that ``as_line`` wrote."""
    fields = json.loads(line)
    finish = fields.pop("finish")
    return Job(**fields, finish=_finish_job(finish) if finish else None)


def _finish_job(fields: dict[str, Any]) -> FinishJob:
    keep = fields.pop("keep")
    scores = {int(step): score for step, score in keep.pop("scores").items()}
    return FinishJob(**fields, keep=Keep(**keep, scores=scores))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a job ended.

    Attributes:
        error: empty if all went well.
        kind: which error it is; a key of ``_KINDS``.
        seconds: it took.
    """

    error: str = ""
    kind: str = ""
    seconds: float = 0.0

    def as_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self)) + "\n"

    def as_error(self, what: str) -> LZeroError:
        """The error for the training loop; ``what`` could not be done."""
        return _KINDS.get(self.kind, LZeroError)(f"{what}: {self.error}")


_KINDS: dict[str, type[LZeroError]] = {
    "environment": MachineError,
    "input": InputError,
    "other": LZeroError,
}


def answer_from_line(line: str) -> Answer:
    """The answer that ``as_line`` wrote."""
    return Answer(**json.loads(line))


def answer_of_failure(error: Exception) -> Answer:
    """The answer to a job that raised ``error``."""
    if isinstance(error, OSError):
        return Answer(error=str(error), kind="environment")
    if isinstance(error, LZeroError):
        kinds = [name for name, kind in _KINDS.items() if isinstance(error, kind)]
        return Answer(error=str(error), kind=kinds[0])
    return Answer(error=repr(error), kind="other")
