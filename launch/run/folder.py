"""The folder of a run: where everything is, and what state the run is in."""

import dataclasses
import fcntl
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from common.errors import InputError, LZeroError
from common.json_output import json_text
from common.ownership import everybody_may_rename_in, is_our_own, on_the_way
from common.run_status import STATUS
from common.telemetry.alert_lines import RESTARTS
from common.whole_file import write_whole

log = logging.getLogger(__name__)

FROM_CHECKPOINT = (
    "begin a new run (--name) from its newest checkpoint (model.path = .../checkpoints/step-.../hf)"
)
"""What to do with a run that cannot go on."""

_CHECKPOINT = re.compile(r"step-\d+")

Status = Literal["running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """What ``state.json`` holds.

    ``seconds`` is wall time by phase, added up over resumes; ``total`` is that of the command.
    """

    status: Status
    started_at: float
    attempts: int = 1
    seconds: dict[str, float] = field(default_factory=dict)
    setup_seconds: float = 0.0
    restarts: list[str] = field(default_factory=list)
    """What was started again and why, over all attempts."""
    phase: str = ""
    phase_at: float = 0.0
    """What the command does, or did last, and since when, seconds since the epoch."""
    failure: str = ""
    """What a run that failed ended of."""

    def failed_of(self, error: BaseException) -> "RunState":
        """The same with what the run failed of."""
        text = str(error) if isinstance(error, LZeroError) else f"{type(error).__name__}: {error}"
        return dataclasses.replace(self, failure=text[:4000])


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths inside a run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def choices(self) -> Path:
        """What the run chose where its configuration leaves it open."""
        return self.path / "choices.json"

    @property
    def inputs(self) -> Path:
        """Digests of the files that the run was begun with."""
        return self.path / "inputs.json"

    @property
    def state_file(self) -> Path:
        """Status and phase timings."""
        return self.path / "state.json"

    @property
    def tasks(self) -> Path:
        """Generated task files and corpora."""
        return self.path / "tasks"

    @property
    def evaluation(self) -> Path:
        """Plans, scores and episodes of the evaluations."""
        return self.path / "evaluation"

    @property
    def prepared(self) -> Path:
        """What ``lzero real`` made before the run, where it was that which began it."""
        return self.path / "prepared"

    @property
    def untouched(self) -> Path:
        """Scores and episodes of the model as it came, where it was asked."""
        return self.prepared / "untouched"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.path / "logs"

    @property
    def actors(self) -> Path:
        """Totals of the actors, one file each; the learner writes them."""
        return self.path / "actors"

    @property
    def checkpoints(self) -> Path:
        """One folder per kept checkpoint."""
        return self.path / "checkpoints"

    @property
    def journal(self) -> Path:
        """What was accepted and decided (docs/journal.md)."""
        return self.path / "journal"

    @property
    def batches(self) -> Path:
        """One JSON line per optimizer step: what it was trained on."""
        return self.path / "batches.jsonl"

    @property
    def metrics(self) -> Path:
        """One JSON line per optimizer step."""
        return self.path / "metrics.jsonl"

    @property
    def alerts(self) -> Path:
        """What the learner tells at once; see ``common.telemetry.alert_lines``."""
        return self.path / "alerts.jsonl"

    @property
    def restarts(self) -> Path:
        """What actors started again of their own processes."""
        return self.path / RESTARTS

    @property
    def learner_totals(self) -> Path:
        """What the learner leaves at its end."""
        return self.path / "learner.json"

    @property
    def profiles(self) -> Path:
        """Profiler traces of the learner, where asked for."""
        return self.path / "profiles"

    @property
    def summary(self) -> Path:
        """The numbers of the run."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def status(self) -> Path:
        """What everybody does and waits for, written by the learner; ``common.run_status``."""
        return self.path / STATUS

    def is_held(self) -> bool:
        """Whether a command is at work in it now."""
        try:
            with (self.path / ".lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def read_state(self) -> RunState | None:
        """The state, or None where no run was begun.

        Raises:
            InputError: the file is none of ours, or of a later version.
        """
        if not self.state_file.is_file():
            return None
        try:
            return RunState(**json.loads(self.state_file.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{self.state_file} is no state of a run that this version knows ({error}); "
                "choose another name with --name"
            ) from error

    def write_state(self, state: RunState) -> None:
        """Replace the state file in one step."""
        write_whole(self.state_file, json_text(dataclasses.asdict(state), indent=1) + "\n")

    def last_checkpoint(self) -> Path | None:
        """The checkpoint with the highest step, or None."""
        return newest_checkpoint(self.checkpoints)

    def steps_done(self) -> int | None:
        """Steps of the newest checkpoint; None without one."""
        last = self.last_checkpoint()
        return None if last is None else int(last.name.removeprefix("step-"))


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step in ``folder``, or None."""
    if not folder.is_dir():
        return None
    found = [path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name)]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def set_aside(folder: RunFolder) -> Path | None:
    """Rename the folder of an earlier run, finished or not, to the first free ``name-1``, ...

    Returns:
        Where it is now; None if there was no run.

    Raises:
        InputError: another command is at work in it.
    """
    if folder.read_state() is None:
        return None
    with locked(folder):
        numbers = itertools.count(1)
        names = (folder.path.with_name(f"{folder.path.name}-{number}") for number in numbers)
        kept = next(path for path in names if not path.exists())
        folder.path.rename(kept)
    return kept


def check_fresh(folder: RunFolder) -> None:
    """Refuse to begin a run in a folder that holds one.

    Raises:
        InputError: the folder holds a run, finished or not, or something else.
    """
    if not folder.path.exists():
        return
    state = folder.read_state()
    name = folder.path.name
    other = "choose another name with --name (make quickstart RUN=...)"
    if state is None:
        if any(entry not in _before_a_run(folder) for entry in folder.path.iterdir()):
            raise InputError(f"{folder.path} exists and holds no run of ours; {other}")
        return
    if state.status == "finished":
        raise InputError(
            f"run '{name}' in {folder.path} is already finished and is not overwritten; {other}, "
            "or remove that folder"
        )
    raise InputError(
        f"run '{name}' in {folder.path} was begun and not finished ({state.status}); go on with it "
        f"by adding --resume, or {other}, or remove that folder"
    )


def _before_a_run(folder: RunFolder) -> tuple[Path, ...]:
    return (folder.path / ".lock", folder.prepared)


def check_resumable(folder: RunFolder) -> RunState:
    """The state of a run that can go on.

    Raises:
        InputError: there is no such run, or it is finished.
    """
    state = folder.read_state()
    if state is None:
        raise InputError(f"nothing to resume: {folder.path} holds no run; leave out --resume")
    if state.status == "finished":
        raise InputError(
            f"nothing to resume: the run in {folder.path} is already finished; to train further, "
            + FROM_CHECKPOINT
        )
    return state


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the folder, so that two commands never write to one run.

    Raises:
        InputError: another command holds it, it cannot be made, or it is somebody else's.
    """
    _make_private(folder)
    with _open_lock(folder.path / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another lzero command is at work in {folder.path}") from error
        yield


@contextmanager
def read_only(folder: RunFolder) -> Iterator[None]:
    """See to it that no command begins to write to a run meanwhile; others may read it, too.

    Raises:
        InputError: the run is on.
    """
    path = folder.path / ".lock"
    if not path.is_file():
        yield
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"the run in {folder.path} is still on; wait for its end, or end it in order (one "
                "SIGTERM to its lzero train): what it journaled stays"
            ) from error
        yield


def _open_lock(path: Path) -> IO[bytes]:
    """Open the file, which may be new; one that is there already may be a trap."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)
    except OSError as error:
        raise InputError(
            f"{path} cannot be opened: {error.strerror}; remove it, or choose another name with "
            "--name"
        ) from error


def _make_private(folder: RunFolder) -> None:
    """Make the folder for its owner alone: it will hold gold answers and whole trajectories.

    The folder of a run that was begun earlier stays as its owner left it.
    """
    try:
        _make_above(folder.path.parent)
        folder.path.mkdir(mode=0o700, exist_ok=True)
        ours = is_our_own(folder.path)
    except OSError as error:
        raise InputError(
            f"run folder {folder.path} cannot be made: {error}; set run.folder to a folder that "
            "can be written to"
        ) from error
    if not ours:
        raise InputError(
            f"run folder {folder.path} belongs to another user, who could read and change the "
            "run; choose another name with --name, or another run.folder"
        )
    if folder.read_state() is None:
        folder.path.chmod(0o700)
    _warn_of_others(folder.path.parent)


def _make_above(folder: Path) -> None:
    """Make the folder and those above it, in which nobody else can write, whatever the umask."""
    if not folder.is_dir():
        _make_above(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)


def _warn_of_others(above: Path) -> None:
    for place in on_the_way(above):
        if everybody_may_rename_in(place.stat()):
            log.warning(
                "in %s everybody may rename the run folder and put another in its place: "
                "chmod o-w %s (or +t), or set run.folder to another place", place, place,
            )  # fmt: skip


class PhaseClock:
    """Adds up wall time by phase, on top of what earlier attempts took."""

    def __init__(self, before: dict[str, float] | None = None) -> None:
        """Start from the seconds of earlier attempts."""
        self.seconds = dict(before or {})
        self._earlier_total = self.seconds.get("total", 0.0)
        self._started = time.monotonic()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to ``name``, also when it raises."""
        started = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - started
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def total(self) -> dict[str, float]:
        """All phases, with ``total`` up to now."""
        total = self._earlier_total + time.monotonic() - self._started
        return {**self.seconds, "total": total}
