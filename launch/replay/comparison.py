"""What a replay made beside what the run recorded, number by number."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.json_output import json_text
from common.telemetry.step_record import StepRecord
from learner.replay.task import ReplayResult, TensorsCompared

OF_A_LIVE_RUN = frozenset(
    [
        "seconds",
        "step_s",
        "trajectories_per_s",
        "trajectories_per_s_mean",
        "wait_s",
        "train_s",
        "publish_s",
        "paused_s",
        "depth",
        "credit",
        "heldout",
        "heldout_versions",
        "dropped",
        "family_success",
    ]
)
"""Fields of a step's record that tell of time, of what else went on, or of the tasks."""

COUNTED = frozenset(
    [
        "step",
        "weight_version",
        "trajectories_trained",
        "trajectories",
        "reward",
        "exact_match",
        "scores",
        "signal_share",
        "parsed_share",
        "cells_ok_share",
        "staleness",
        "action_tokens",
        "steps_per_trajectory",
        "segments_per_trajectory",
    ]
)
"""Fields that follow from the batch alone, whatever computed with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Deviation:
    """Something that came out otherwise: in which step, what, and both values as texts."""

    step: int
    what: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        """For a person."""
        return f"step {self.step}: {self.what} was {self.recorded} and is {self.replayed}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What a run recorded: by step, its line of ``metrics.jsonl`` and of ``batches.jsonl``."""

    metrics: Mapping[int, Mapping[str, Any]]
    batches: Mapping[int, Sequence[str]]


def read_recorded(metrics: Path, batches: Path) -> Recorded:
    """What the files of a run hold; files that are not there hold nothing."""
    return Recorded(
        metrics=dict(_lines(metrics)),
        batches={step: line["trajectories"] for step, line in _lines(batches)},
    )


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The whole lines with their steps; what is none is of a killed process."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            table = json.loads(line)
            yield int(table["step"]), table
        except (ValueError, LookupError, TypeError):
            continue


def differences(recorded: Recorded, result: ReplayResult, *, same_ranks: bool) -> list[Deviation]:
    """Everything of the first trial that is not as it was recorded, by step.

    With another number of ranks sums are added up in another order: only what is counted, and the
    order, can be the same.
    """
    records = result.trials[0].records
    found: list[Deviation] = []
    for record, batch in zip(records, result.batches, strict=True):
        found += _of_order(record.step, recorded.batches.get(record.step), batch)
        if (line := recorded.metrics.get(record.step)) is not None:
            found += _of_metrics(line, record, same_ranks=same_ranks)
    if same_ranks:
        for compared in result.kept:
            found += of_tensors(compared, "kept")
    return sorted(found, key=lambda difference: difference.step)


def of_tensors(compared: TensorsCompared, other: str) -> Iterator[Deviation]:
    """Those that differ, the first by name and the others by number."""
    if compared.differing:
        more = len(compared.differing) - 1
        name = f"tensor {compared.differing[0]}"
        what = f"{name} (and {more} more of {compared.tensors})" if more else name
        yield Deviation(step=compared.step, what=what, recorded=other, replayed="not the same")


def _of_order(step: int, then: Sequence[str] | None, now: Sequence[str]) -> Iterator[Deviation]:
    if then is None or list(then) == list(now):
        return
    number = next((n for n, pair in enumerate(zip(then, now, strict=False)) if len(set(pair)) > 1),
                  min(len(then), len(now)))  # fmt: skip
    old, new = (ids[number] if number < len(ids) else "none" for ids in (then, now))
    yield Deviation(step=step, what=f"trajectory {number} of the batch", recorded=old, replayed=new)


def _of_metrics(
    line: Mapping[str, Any], record: StepRecord, *, same_ranks: bool
) -> Iterator[Deviation]:
    now = dict(_flat(json.loads(json_text(asdict(record)))))
    then = dict(_flat(line))
    for name in sorted(then.keys() & now):
        field = name.partition(".")[0]
        is_compared = field in COUNTED or (same_ranks and field not in OF_A_LIVE_RUN)
        if is_compared and then[name] != now[name]:
            old, new = json_text(then[name]), json_text(now[name])
            yield Deviation(step=record.step, what=name, recorded=old, replayed=new)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
