"""What a process leaves in the run folder at its end, for the summary: numbers of all it did.

The learner's rank 0 leaves ``learner.json``, over all attempts of the run; each actor leaves
``actors/ID.json``, of its own life.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from common.json_output import as_number, json_text
from common.whole_file import write_whole


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
    """``actors/ID.json``.

    Attributes:
        launcher: of its kernels.
        kernel_level: how well they are isolated.
        kernels_started: used or not.
        requests: answered by the policy servers.
        request_retries: of these and of those that failed.
        tokens_generated: sampled by the policy servers.
        resent: messages that went to the coordinator again.
    """

    actor_id: str
    launcher: str
    kernel_level: str
    kernels_started: int
    requests: int
    request_retries: int
    tokens_generated: int
    resent: int


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


def read_actor_totals(folder: Path) -> list[ActorTotals]:
    """What ``write_totals`` left of every actor in ``folder``, in the order of their ids."""
    files = sorted(folder.glob("*.json"))
    return [ActorTotals(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
