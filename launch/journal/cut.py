"""A piece of a journal that can be replayed, to attach to a report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from launch.journal.place import JournalPlace
from launch.journal.starts import Start, choose_start
from launch.journal.steps import Steps
from launch.outputs import written
from launch.run.folder import RunFolder
from learner.checkpoints.files import checkpoint_name
from learner.journal.format import NO_CHECKPOINT, SegmentHeader, segment_header
from learner.journal.segments import Place, segment_path
from learner.journal.survey import survey


@dataclass(frozen=True, kw_only=True, slots=True)
class CutPiece:
    """What was cut: from which start on, which steps, and how much that is."""

    out: Path
    start: Start
    steps: Steps
    records: int
    num_bytes: int

    @property
    def also_needed(self) -> str:
        """What a replay of it needs besides."""
        model = "the model folder that model.path in its config.json names"
        if not self.start.step:
            return model
        return f"checkpoints/{checkpoint_name(self.start.step)} of the run, and {model}"


def cut_journal(place: JournalPlace, steps: Steps, out: Path) -> CutPiece:
    """Write the records from the checkpoint before ``steps`` up to their last batch to ``out``.

    With them go the run's configuration and what it recorded of these steps.

    Raises:
        InputError: they are not all there, or ``out`` cannot be written.
    """
    found = survey(place.folder)
    start = choose_start(place, found, steps)
    last = start.steps[steps.last - start.step - 1]
    places = start.places[: last.serial - start.serial + 1]
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise InputError(f"--out {out} exists and is not empty; name a new folder")
    with written(out):
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        num_bytes = _write(out, start, places)
        _copy_records(place.run, RunFolder(out), Steps(start.step + 1, steps.last))
    return CutPiece(
        out=out, start=start, steps=Steps(start.step + 1, steps.last), records=len(places),
        num_bytes=num_bytes,
    )  # fmt: skip


def _write(out: Path, start: Start, places: Sequence[Place]) -> int:
    folder = RunFolder(out).journal
    folder.mkdir(mode=0o700)
    header = SegmentHeader(
        number=0, first_serial=start.serial, checkpoint=start.step or NO_CHECKPOINT
    )
    path = segment_path(folder, 0)
    with path.open("wb") as file:
        file.write(segment_header(header))
        for place in places:
            with place.segment.open("rb") as source:
                source.seek(place.offset)
                file.write(source.read(place.num_bytes))
    return path.stat().st_size


def _copy_records(run: RunFolder, out: RunFolder, steps: Steps) -> None:
    if run.config.is_file():
        out.config.write_bytes(run.config.read_bytes())
    for source, target in ((run.metrics, out.metrics), (run.batches, out.batches)):
        lines = source.read_text(encoding="utf-8").splitlines() if source.is_file() else []
        kept = [line for line in lines if _is_of(line, steps)]
        if kept:
            target.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _is_of(line: str, steps: Steps) -> bool:
    try:
        return json.loads(line)["step"] in steps
    except (ValueError, LookupError, TypeError):
        return False
