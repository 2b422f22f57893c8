"""The numbers a run writes about itself: JSON lines always, wandb when asked."""

import dataclasses
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, Protocol

from common.config import Run
from common.config.names import LONGEST_NAME
from common.config.ranges import short
from common.errors import ConfigError
from common.json_output import json_text
from common.telemetry.step_record import StepRecord
from common.whole_file import write_whole

log = logging.getLogger(__name__)


class MetricWriter(Protocol):
    """Something that takes one record per step."""

    def write(self, record: StepRecord) -> None:
        """Take one record."""

    def close(self) -> None:
        """Flush and release."""


class StepLines:
    """A file with one JSON line per step, readable while the run goes on."""

    def __init__(self, path: Path, *, after_step: int) -> None:
        """Open ``path`` for appending; lines of steps after ``after_step`` are taken out.

        They are of an attempt that got further than its last checkpoint and will be done again.
        What is no whole line of JSON with a step is of a killed process, and goes, too.
        """
        text = path.read_text() if path.exists() else ""
        kept = "".join(
            line for line in text.splitlines(keepends=True) if _step_of(line) <= after_step
        )
        if kept != text:
            write_whole(path, kept)
        self._file = path.open("a", buffering=1)

    def append(self, table: Mapping[str, Any]) -> None:
        """Add one line; ``table`` has a ``step``."""
        self._file.write(json_text(table) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _step_of(line: str) -> float:
    """The step of a line; infinite for what is no whole line."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else inf
    except (ValueError, KeyError, TypeError):
        return inf


class JsonlWriter(StepLines):
    """Appends each record to ``metrics.jsonl``."""

    def write(self, record: StepRecord) -> None:
        """Append one line."""
        self.append(dataclasses.asdict(record))


class WandbWriter:
    """Sends each record to Weights & Biases, flattened with slashes."""

    def __init__(self, run: Run, folder: Path, config: dict[str, Any]) -> None:
        """Start (or continue) the wandb run that belongs to ``folder``.

        The x-axis is the record's own step: W&B drops what is logged at a step below the last,
        as a resumed run does for the steps after its checkpoint.
        """
        import wandb

        self._run = wandb.init(
            project=wandb_project(),
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


def wandb_project() -> str:
    """The project of runs in Weights & Biases: WANDB_PROJECT of the environment, or ours.

    Raises:
        ConfigError: Weights & Biases would refuse the name.
    """
    name = os.environ.get("WANDB_PROJECT") or "l-zero"
    if len(name) > LONGEST_NAME or set(name) & set("/\\#?%:"):
        raise ConfigError(
            "WANDB_PROJECT must be a name of at most 128 characters without / \\ # ? % and :, "
            f"got {short(name)}"
        )
    return name


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
        with self._giving_up("start"):
            self._writer = make()

    def write(self, record: StepRecord) -> None:
        """Pass a record on, while the writer works."""
        if self._writer is not None:
            with self._giving_up("write"):
                self._writer.write(record)

    def close(self) -> None:
        """Release the writer."""
        if self._writer is not None:
            with self._giving_up("close"):
                self._writer.close()

    @contextmanager
    def _giving_up(self, what: str) -> Iterator[None]:
        try:
            yield
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
        write_whole(file, secrets.token_hex(8) + "\n")
    return file.read_text().strip()
