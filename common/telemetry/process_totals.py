"""What the processes of a run did, in numbers, for the summary.

The learner's rank 0 leaves ``learner.json`` at its end, over all attempts of the run. Actors, also
those that joined from elsewhere, say their numbers with their goodbye; rank 0 adds them up in
``actors/NAME.json``, over all lives that an actor of that name had. One that is killed says none.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from common.json_output import as_number, json_text
from common.whole_file import write_whole

LARGEST_COUNT = 2**63 - 1
"""Of anything that an actor counts, in one life or in all."""
_MAX_WORD_CHARACTERS = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class TrajectoryCounts:
    """``started`` = ``trained`` + dropped + ``open``; evaluations are not counted."""

    started: int
    finished: int
    trained: int
    dropped: dict[str, int]
    open: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StalenessTotals:
    """Versions by which actions lagged; ``histogram`` counts actions.

    ``depth`` is how far ahead of the learner sampling might run at the end, in batches, ``credit``
    the part of the episodes that actors ask for which might be in flight then.
    """

    bound: int
    max: int
    mean: float
    histogram: dict[str, int]
    depth: float = 0.0
    credit: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LogprobMismatch:
    """Server against learner, over all tokens at staleness 0, at every check."""

    mean_abs: float
    max_abs: float
    tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerTotals:
    """``learner.json``.

    Attributes:
        steps: optimizer steps of the run.
        ranks: learner processes.
        weight_versions: published, with that of step 0.
        rl_seconds: from the first admission to the last publish.
        idle_fraction: share of ``rl_seconds`` in which it waited for trajectories.
        paused_seconds: the policy servers stood still for new weights, all publishes together.
        tokens_generated: sampled in training episodes that came back.
        cells_executed: in training episodes that came back.
        failed_saves: checkpoints that could not be written.
        last_failed_save: what was said of the last of them.
    """

    steps: int
    ranks: int
    weight_versions: int
    rl_seconds: float
    idle_fraction: float
    paused_seconds: float
    trajectories: TrajectoryCounts
    staleness: StalenessTotals
    logprob_mismatch: LogprobMismatch
    tokens_generated: int
    cells_executed: int
    failed_saves: int = 0
    last_failed_save: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorTotals:
    """What an actor did in one life, and ``actors/NAME.json``: in all of them.

    Attributes:
        launcher: of its kernels.
        kernel_level: how well they are isolated.
        kernels_started: used or not.
        requests: answered by the policy servers.
        request_retries: of these and of those that failed.
        tokens_generated: sampled by the policy servers.
        resent: messages that went to the coordinator again.
    """

    launcher: str
    kernel_level: str
    kernels_started: int
    requests: int
    request_retries: int
    tokens_generated: int
    resent: int

    def __post_init__(self) -> None:
        """Reject what no actor of ours counts."""
        for word in (self.launcher, self.kernel_level):
            if len(word) > _MAX_WORD_CHARACTERS or not word.isprintable():
                raise ValueError(
                    f"launcher and kernel_level must have at most {_MAX_WORD_CHARACTERS} "
                    f"characters that can be printed, got {word[:40]!r}"
                )
        for name, count in dataclasses.asdict(self).items():
            if isinstance(count, int) and not 0 <= count <= LARGEST_COUNT:
                raise ValueError(f"{name} must be from 0 to {LARGEST_COUNT}, got {count}")

    def then(self, later: "ActorTotals") -> "ActorTotals":
        """Of this life and a later one together.

        Raises:
            ValueError: a sum is above ``LARGEST_COUNT``.
        """
        return ActorTotals(
            launcher=later.launcher,
            kernel_level=later.kernel_level,
            kernels_started=self.kernels_started + later.kernels_started,
            requests=self.requests + later.requests,
            request_retries=self.request_retries + later.request_retries,
            tokens_generated=self.tokens_generated + later.tokens_generated,
            resent=self.resent + later.resent,
        )


def write_totals(totals: LearnerTotals | ActorTotals, path: Path) -> None:
    """Write the file in one step."""
    write_whole(path, json_text(dataclasses.asdict(totals), indent=1) + "\n")


def read_learner_totals(path: Path) -> LearnerTotals:
    """What ``write_totals`` left of a learner."""
    record = json.loads(path.read_text(encoding="utf-8"))
    mismatch = {name: as_number(value) for name, value in record["logprob_mismatch"].items()}
    parts = {
        "trajectories": TrajectoryCounts(**record["trajectories"]),
        "staleness": StalenessTotals(**record["staleness"]),
        "logprob_mismatch": LogprobMismatch(**mismatch | {"tokens": int(mismatch["tokens"])}),
    }
    return LearnerTotals(**record | parts)


def add_actor_totals(name: str, totals: ActorTotals, *, folder: Path) -> None:
    """Add those of a life of the actor ``name``, a member's, to what ``folder`` has of it.

    Raises:
        OSError: the file cannot be read or written.
        ValueError: it is none of ours, or a sum is above ``LARGEST_COUNT``.
    """
    path = folder / f"{name}.json"
    folder.mkdir(exist_ok=True)
    write_totals(_read_actor(path).then(totals) if path.exists() else totals, path)


def read_actor_totals(folder: Path) -> dict[str, ActorTotals]:
    """What ``add_actor_totals`` left of every actor in ``folder``, by its name, in their order.

    Raises:
        ValueError: a file is none of ours.
    """
    return {file.stem: _read_actor(file) for file in sorted(folder.glob("*.json"))}


def _read_actor(path: Path) -> ActorTotals:
    """Earlier versions wrote the actor's name into the file, too."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return ActorTotals(**{name: record[name] for name in record if name != "actor_id"})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} has no totals of an actor: {error}") from error
