"""Finds and reads episodes to be shown: those of a training run, of an evaluation, of an agent."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from actors.agent.events import Episode as AgentEpisode
from common.episode_record import EvaluationRecord, TrajectoryRecord, read_records
from common.errors import InputError
from common.wire.records import Step

_LOST = "infrastructure"


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """An episode as people read it, wherever it came from.

    Attributes:
        names: ids that it can be asked for by: of the trajectory, of its task.
        question: what was asked; empty where an old record does not say.
        steps: every action with its observation.
        outcome: how it ended.
        answer: what was submitted, or None.
        failure: what failed, if our part did.
        reward: sum of the step rewards; None where none was given.
        scores: named measurements of the answer.
        details: what else is worth showing, by name.
    """

    names: tuple[str, ...]
    question: str
    steps: tuple[Step, ...]
    outcome: str
    answer: str | None
    failure: str = ""
    reward: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)

    @property
    def quality(self) -> float:
        """What ``best`` and ``worst`` compare: the reward, else the scores of the answer."""
        if self.reward is not None:
            return self.reward
        return self.scores.get("exact_match", 0.0) + self.scores.get("f1", 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which episode is meant: an id, a place in the file from 0, or the best or worst of all."""

    name: str = ""
    index: int | None = None
    extreme: Literal["best", "worst", ""] = ""


def transcript_of(episode: AgentEpisode, question: str) -> Transcript:
    """The transcript of an episode that an agent just finished (``NotebookAgent.run``)."""
    return Transcript(
        names=(),
        question=question,
        steps=episode.steps,
        outcome=episode.outcome.value,
        answer=episode.answer,
        failure=episode.failure,
        details=_details(episode, "kernel_level"),
    )


def find_transcript(path: Path, choice: Choice) -> Transcript:
    """The chosen episode of a run folder, of a result of ``lzero eval``, or of a file of episodes.

    A run folder stands for its trajectories or, where an id is not among them, its evaluations.

    Raises:
        InputError: there is no such file or episode, or a line of a file cannot be read.
    """
    files = _files(path)
    if choice.name:
        return _named(files, choice.name, path)
    if choice.extreme:
        return _extreme(_same_kind(files), choice, path)
    wanted = choice.index or 0
    for number, found in enumerate(_read_all(_same_kind(files))):
        if number == wanted:
            return _with_question(found, path)
    raise InputError(f"{path} has no episode {wanted}; the first is 0")


def transcript_of_record(record: TrajectoryRecord | EvaluationRecord) -> Transcript:
    """The transcript of an episode that a run has kept."""
    shared: dict[str, Any] = {
        name: getattr(record, name) for name in ("steps", "outcome", "answer", "failure", "scores")
    }
    if isinstance(record, TrajectoryRecord):
        return Transcript(
            names=(record.trajectory_id, record.task_id),
            question=record.question,
            reward=sum(record.step_rewards),
            details=_details(record, "task_id", "purpose", "oldest_version", "kernel_level"),
            **shared,
        )
    gold = {"gold answers": "; ".join(record.task.answers)}
    return Transcript(
        names=(record.task.task_id,),
        question=record.task.question,
        details=gold | _details(record, "weight_version", "kernel_level"),
        **shared,
    )


def _details(record: object, *names: str) -> dict[str, str]:
    found = {name.replace("_", " "): getattr(record, name) for name in names}
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (evaluated := path / "episodes.jsonl").is_file():
        return [evaluated]
    files = sorted(path.glob("trajectories/part-*.jsonl"))
    files += sorted(path.glob("evaluation/**/*.jsonl"))
    if not files:
        raise InputError(
            f"{path} is neither a file of episodes, nor a result of lzero eval (episodes.jsonl), "
            "nor a run folder with trajectories/part-*.jsonl or evaluation/**/*.jsonl"
        )
    return files


def _same_kind(files: Sequence[Path]) -> list[Path]:
    """Trajectories where there are any: their rewards cannot be compared with evaluations."""
    trajectories = [file for file in files if file.parent.name == "trajectories"]
    return trajectories or list(files)


def _read_all(files: Sequence[Path]) -> Iterator[Transcript]:
    for file in files:
        yield from map(transcript_of_record, read_records(file))


def _named(files: Sequence[Path], name: str, path: Path) -> Transcript:
    for found in _read_all(files):
        if name in found.names:
            return _with_question(found, path)
    raise InputError(f"{path} has no trajectory and no task called {name!r}")


def _extreme(files: Sequence[Path], choice: Choice, path: Path) -> Transcript:
    kept = (found for found in _read_all(files) if found.outcome != _LOST)
    pick = max if choice.extreme == "best" else min
    chosen = pick(kept, key=lambda found: found.quality, default=None)
    if chosen is None:
        raise InputError(f"{path} has no finished episode")
    return _with_question(chosen, path)


def _with_question(found: Transcript, path: Path) -> Transcript:
    """Old trajectories do not hold their question; the run's task files do."""
    if found.question or not path.is_dir():
        return found
    for file in sorted(path.glob("tasks/**/*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if not any(json.dumps(name) in line for name in found.names):
                    continue
                task = json.loads(line)
                if task.get("task_id") in found.names and "question" in task:
                    return replace(found, question=str(task["question"]))
    return found
