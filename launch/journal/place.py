"""What a path of a journal means, and which of its checkpoints go on from which record."""

from dataclasses import dataclass
from pathlib import Path

from common.config_file import read_tables
from common.errors import InputError
from launch.run.folder import RunFolder
from learner.checkpoints.files import LEDGER, finished_checkpoints, step_of
from learner.coordination.ledger import coordinator_part, journal_position
from learner.journal.segments import segment_files


@dataclass(frozen=True, slots=True)
class JournalPlace:
    """A journal, and the run that it is of."""

    run: RunFolder
    folder: Path

    @property
    def keeps_all(self) -> bool:
        """Whether the run was to keep all of it (``run.keep_journal``)."""
        if not self.run.config.is_file():
            return False
        return bool(read_tables(self.run.config).get("run", {}).get("keep_journal", False))

    def positions(self) -> dict[int, int]:
        """For the step of each kept checkpoint, the record that it goes on from.

        Raises:
            InputError: another version of l-zero wrote one of them.
        """
        return {step: journal_position(coordinator_part(ledger))
                for step, ledger in self._ledgers().items()}  # fmt: skip

    def _ledgers(self) -> dict[int, bytes]:
        files = {
            step_of(path): path / LEDGER for path in finished_checkpoints(self.run.checkpoints)
        }
        found = {}
        for step, file in sorted(files.items()):
            try:
                found[step] = file.read_bytes()
            except OSError as error:
                raise InputError(
                    f"'{file}' cannot be read: {error}; a checkpoint without it is damaged, move "
                    f"the folder '{file.parent}' away to go on without it"
                ) from error
        return found


def find_journal(path: Path) -> JournalPlace:
    """The journal of a run folder, or a folder ``journal`` itself.

    Raises:
        InputError: there is none.
    """
    folder = path.expanduser().resolve()
    if not folder.is_dir():
        missing = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"run {path} {missing}; name a run folder, such as runs/quickstart")
    if segment_files(folder):
        return JournalPlace(RunFolder(folder.parent), folder)
    run = RunFolder(folder)
    if not segment_files(run.journal):
        raise InputError(
            f"run {path} keeps no journal: expected '{run.journal}/segment-....journal'; a run "
            "that is to be looked into later keeps all of it with --set run.keep_journal=true"
        )
    return JournalPlace(run, run.journal)
