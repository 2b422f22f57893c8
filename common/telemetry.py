"""Logging, and the numbers a run writes about itself: JSON lines always, wandb when asked."""

import dataclasses
import json
import logging
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from common.config import Run
from common.json_text import json_text
from common.visible import visible

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One line of ``metrics.jsonl``: what one optimizer step did. Shares lie in [0, 1].

    ``family_success`` is the exact-match share of the batch by the task label ``family``;
    ``heldout`` the same of a short evaluation that ended in this step, of the weights before it;
    empty when there was none. ``scores`` are the means of what the trajectories of the batch record
    (docs/rewards.md), each over those that have it.
    ``staleness`` counts actions by how many versions they lagged. ``mismatch_*`` are absolute
    log-probability differences on tokens whose version was the learner's. ``diagnostics`` say how
    far the learner is from the policy that sampled; ``learner/step/metrics.py`` explains them.
    """

    step: int
    weight_version: int
    seconds: float
    trajectories_trained: int
    trajectories_per_s: float
    reward: float
    exact_match: float
    family_success: dict[str, float]
    heldout: dict[str, float] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    staleness: dict[str, int]
    dropped: dict[str, int]
    loss: float
    grad_norm: float
    learning_rate: float
    skipped: bool
    effective_sample_share: float
    masked: dict[str, float]
    k3: float
    mismatch_mean: float
    mismatch_max: float
    mismatch_tokens: int
    action_tokens: int
    packed_tokens: int
    steps_per_trajectory: float
    segments_per_trajectory: float = 1.0
    wait_s: float
    train_s: float
    publish_s: float
    paused_s: float
    diagnostics: dict[str, float] = field(default_factory=dict)


class MetricWriter(Protocol):
    """Something that takes one record per step."""

    def write(self, record: StepRecord) -> None:
        """Take one record."""

    def close(self) -> None:
        """Flush and release."""


class JsonlWriter:
    """Appends each record as one JSON line, readable while the run goes on."""

    def __init__(self, path: Path, *, after_step: int) -> None:
        """Open ``path`` for appending; lines of steps after ``after_step`` are taken out.

        They are of an attempt that got further than its last checkpoint and will be done again.
        """
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= after_step]
        path.write_text("".join(kept))
        self._file = path.open("a", buffering=1)

    def write(self, record: StepRecord) -> None:
        """Append one line."""
        self._file.write(json_text(dataclasses.asdict(record)) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    """The whole lines of a file that may be missing, or end in half a line."""
    text = path.read_text() if path.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


class WandbWriter:
    """Sends each record to Weights & Biases, flattened with slashes."""

    def __init__(self, run: Run, folder: Path, config: dict[str, Any]) -> None:
        """Start (or continue) the wandb run that belongs to ``folder``.

        The x-axis is the record's own step: W&B drops what is logged at a step below the last,
        as a resumed run does for the steps after its checkpoint.
        """
        import wandb

        self._run = wandb.init(
            project=run.wandb_project,
            name=run.name,
            dir=str(folder),
            mode=run.wandb,
            config=config,
            resume="allow",
            id=wandb_id(folder),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, record: StepRecord) -> None:
        """Log one record."""
        flat: dict[str, Any] = {}
        for name, value in dataclasses.asdict(record).items():
            if isinstance(value, dict):
                flat.update({f"{name}/{key}": item for key, item in value.items()})
            else:
                flat[name] = value
        self._run.log(flat)

    def close(self) -> None:
        """Finish the wandb run."""
        self._run.finish()


def metric_writers(
    run: Run, folder: Path, config: dict[str, Any], *, after_step: int
) -> tuple[MetricWriter, ...]:
    """The writers a run asks for; ``after_step`` steps have been done."""
    writers: list[MetricWriter] = [JsonlWriter(folder / "metrics.jsonl", after_step=after_step)]
    if run.wandb != "disabled":
        writers.append(Tolerant("wandb", lambda: WandbWriter(run, folder, config)))
    return tuple(writers)


class Tolerant:
    """A writer whose failures are logged once and end nothing: every number is also on disk."""

    def __init__(self, name: str, make: Callable[[], MetricWriter]) -> None:
        """Make the writer; one that cannot be made takes nothing."""
        self._name = name
        self._writer: MetricWriter | None = None
        self._attempt("start", lambda: setattr(self, "_writer", make()))

    def write(self, record: StepRecord) -> None:
        """Pass a record on, while the writer works."""
        if self._writer is not None:
            writer = self._writer
            self._attempt("write", lambda: writer.write(record))

    def close(self) -> None:
        """Release the writer."""
        if self._writer is not None:
            self._attempt("close", self._writer.close)

    def _attempt(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            log.error(
                "metrics writer failed name=%s doing=%s error=%s: %s; the run goes on, and "
                "metrics.jsonl holds every step",
                self._name, what, type(error).__name__, error,
            )  # fmt: skip
            self._writer = None


def wandb_id(folder: Path) -> str:
    """The id of the W&B run that belongs to ``folder``: drawn once, then kept in the folder.

    It depends on neither name nor seed: two runs of one name are two runs, and a resumed one is
    itself.
    """
    file = folder / "wandb_id"
    if not file.is_file():
        partial = file.with_suffix(".partial")
        partial.write_text(secrets.token_hex(8) + "\n")
        partial.replace(file)
    return file.read_text().strip()


class _LineFormatter(logging.Formatter):
    """One event a line; what a message quotes can neither steer a terminal nor begin a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        said = visible(record.getMessage()).replace("\n", "\n  | ")
        text = f"{moment} {self._role} {record.levelname.lower()} {said}"
        if record.exc_info:
            text += "\n" + visible(self.formatException(record.exc_info))
        return text


def configure_logging(role: str, level: int = logging.INFO) -> None:
    """One line per event on standard error, with the process' role; call it once, in ``main``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
