"""The folder of a result: under which settings it was made, and its episodes.

settings.json    what two attempts must share, or they would be mixed
episodes.jsonl   one line per episode, appended as they end; a later line of the same question
                 replaces an earlier one
results.json     the scores
report.html      the same as a page
config.json, job.json, logs/   what the processes were told, and what they said
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.asking import AskMode
from common.episode_record import EvaluationRecord, read_evaluation
from common.errors import InputError
from common.json_input import parse_json, read_text
from common.json_output import json_text
from common.whole_file import write_whole
from launch.run.folder import RunFolder, locked

_SHOWN_DIFFERENCES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedSet:
    """A question set: its name, its file, and a digest of what that holds."""

    name: str
    tasks: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalSettings:
    """Everything that scores depend on.

    Attributes:
        model: folder, or name on the server.
        model_digest: of a folder; empty for a server's.
        url: of the server; empty for a folder.
        sets: in the order of the results.
        mode, samples, limit, temperature: as in ``common.asking.AskJob``.
        corpus: index file; empty for none.
        corpus_digest: of what it holds.
        config: agent, tools, kernel, task kinds, judge and context of the configuration, as tables.
    """

    model: str
    model_digest: str = ""
    url: str = ""
    sets: tuple[AskedSet, ...]
    mode: AskMode
    samples: int
    limit: int
    temperature: float
    corpus: str = ""
    corpus_digest: str = ""
    config: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sets."""
        return tuple(one.name for one in self.sets)


@dataclass(frozen=True, slots=True)
class EvalFolder:
    """Paths inside of the folder of a result."""

    path: Path

    @property
    def settings(self) -> Path:
        """Under which it was made."""
        return self.path / "settings.json"

    @property
    def episodes(self) -> Path:
        """One line each."""
        return self.path / "episodes.jsonl"

    @property
    def config(self) -> Path:
        """Of the agent and the policy server."""
        return self.path / "config.json"

    @property
    def results(self) -> Path:
        """Scores as JSON."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """Scores as a page."""
        return self.path / "report.html"

    @property
    def logs(self) -> Path:
        """One per process."""
        return self.path / "logs"

    def read_settings(self) -> EvalSettings:
        """Those it was made under.

        Raises:
            InputError: it holds no result.
        """
        if not self.settings.is_file():
            raise InputError(f"{self.path} holds no result of lzero eval (no settings.json)")
        given = parse_json(read_text(self.settings, what="settings"), str(self.settings))
        try:
            sets = tuple(AskedSet(**one) for one in given["sets"])
            return EvalSettings(**given | {"sets": sets})
        except (TypeError, KeyError) as error:
            raise InputError(f"{self.settings} is damaged: {error}") from error

    def read_episodes(self) -> list[EvaluationRecord]:
        """The newest episode of each question.

        Raises:
            InputError: a line is no episode.
        """
        if not self.episodes.is_file():
            return []
        return list({record.key: record for record in read_evaluation(self.episodes)}.values())


@contextmanager
def opened(folder: EvalFolder, settings: EvalSettings) -> Iterator[None]:
    """Hold the folder for one command that goes on, or begins, under ``settings``.

    Raises:
        InputError: it holds something else, or episodes under others; names what differs.
    """
    if folder.path.is_dir() and not folder.settings.is_file():
        others = sorted(entry.name for entry in folder.path.iterdir() if entry.name != ".lock")
        if others:
            raise InputError(
                f"--out {folder.path} exists and holds no result of lzero eval (but "
                f"{', '.join(others[:3])}); choose another folder"
            )
    with locked(RunFolder(folder.path)):
        if folder.episodes.is_file() and folder.episodes.stat().st_size:
            _check_same(folder, settings)
        else:
            text = json_text(dataclasses.asdict(settings), indent=1)
            write_whole(folder.settings, text + "\n")
        yield


def _check_same(folder: EvalFolder, settings: EvalSettings) -> None:
    then = _flat(json.loads(json_text(dataclasses.asdict(folder.read_settings()))))
    now = _flat(json.loads(json_text(dataclasses.asdict(settings))))
    differing = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if differing:
        shown = "; ".join(
            f"{key} was {then.get(key)!r:.60}, now {now.get(key)!r:.60}"
            for key in differing[:_SHOWN_DIFFERENCES]
        )
        more = len(differing) - _SHOWN_DIFFERENCES
        raise InputError(
            f"the result in {folder.path} was made under other settings: {shown}"
            + (f"; and {more} more" if more > 0 else "")
            + ". Name another folder with --out, or ask as before"
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves by their path, like ``config.agent.max_steps`` and ``sets[0].digest``."""
    if isinstance(value, dict):
        parts = [_flat(inner, f"{path}.{key}".removeprefix(".")) for key, inner in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        parts = [_flat(inner, f"{path}[{number}]") for number, inner in enumerate(value)]
    else:
        return {path: value}
    return {key: leaf for part in parts for key, leaf in part.items()}
