"""Says that a run learns nothing or loses most of its work, from the records of its steps.

Training goes on happily on data without any signal: an untrained model whose actions never parse
gives losses and learning rates of 0 for as long as one lets it. Learner, panel, summary and report
all ask here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.telemetry.step_record import StepRecord

PATIENCE = 4
"""Steps in a row after which a sign is an alert; a shorter run's all steps."""

FEW = 0.02
"""A share that is as good as none."""

LOST = 0.5
"""A share of lost episodes that somebody should know of."""

MOST = 0.98
"""A share that is as good as all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """Something that keeps a run from learning.

    Attributes:
        kind: a short name of the cause.
        first, last: the steps in a row over which it held.
        text: what is wrong, with numbers, and what to do, for a person.
    """

    kind: str
    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True)
class _Sign:
    kind: str
    consequence: str
    holds: Callable[[StepRecord], bool]
    describe: Callable[[Sequence[StepRecord]], str]


def find_alerts(records: Sequence[StepRecord], *, steps: int) -> list[Alert]:
    """What kept a run of ``steps`` steps from learning for a while, most basic cause first.

    Args:
        records: in the order of their steps, as many as there are.
        steps: optimizer steps of the whole run.
    """
    return _alerts(records, steps, _longest)


def present_alerts(records: Sequence[StepRecord], *, steps: int) -> list[Alert]:
    """What keeps a run from learning up to the last of ``records``; see ``find_alerts``."""
    return _alerts(records, steps, lambda stretches: stretches[-1])


def _alerts(
    records: Sequence[StepRecord],
    steps: int,
    choose: Callable[[list[list[StepRecord]]], list[StepRecord]],
) -> list[Alert]:
    found = []
    for sign in _SIGNS:
        stretch = choose(_stretches(records, sign.holds))
        if len(stretch) >= max(1, min(PATIENCE, steps)):
            first, last = stretch[0].step, stretch[-1].step
            where = f"in steps {first} to {last}" if last > first else f"in step {first}"
            text = f"{sign.consequence}: {where} {sign.describe(stretch)}"
            found.append(Alert(kind=sign.kind, first=first, last=last, text=text))
    return found


def _stretches(
    records: Sequence[StepRecord], holds: Callable[[StepRecord], bool]
) -> list[list[StepRecord]]:
    """The records in which ``holds`` is true, those in a row together; the last is the present."""
    stretches: list[list[StepRecord]] = [[]]
    for record in records:
        if holds(record):
            stretches[-1].append(record)
        else:
            stretches.append([])
    return stretches


def _longest(stretches: list[list[StepRecord]]) -> list[StepRecord]:
    return max(stretches, key=len)


def _unparsable(records: Sequence[StepRecord]) -> str:
    return (
        f"{1 - _mean(records, 'parsed_share'):.0%} of the actions do not parse, so that hardly "
        "anything is tried; begin with a model that knows the format (a warm start: lzero sft), "
        "reward it (rewards.terms.format, or unparsable with a negative weight), allow "
        "agent.format_reminders, or raise agent.max_action_tokens if actions are cut off"
    )


def _failing_cells(records: Sequence[StepRecord]) -> str:
    return (
        f"{1 - _mean(records, 'cells_ok_share'):.0%} of the cells ended in an error or not at all; "
        "look at episodes (lzero export-notebook) and at the kernel's limits, reward code that "
        "runs (rewards.terms.code), or begin with a model that writes such code"
    )


def _no_signal(records: Sequence[StepRecord]) -> str:
    reward, right = _mean(records, "reward"), _mean(records, "exact_match")
    remedy = (
        "use harder tasks"
        if right > MOST
        else "use easier tasks, a warm start (lzero sft), rewards for the way (rewards.terms), or "
        "a larger learner.group_size"
    )
    return (
        f"no group had a signal: all its members earned the same (mean reward {reward:.3g}, "
        f"{right:.0%} of the answers right), so that nothing was learned; {remedy}"
    )


def _lost(records: Sequence[StepRecord]) -> str:
    last = records[-1]
    reasons = sorted(_losses(last).items(), key=lambda item: -item[1])
    listed = ", ".join(f"{reason} {count}" for reason, count in reasons[:3])
    return (
        f"{_lost_share(last):.0%} of the episodes so far were dropped ({listed}); of an "
        "infrastructure failure the trajectory store tells the cause ('failure'), against stale "
        "ones lower actors.episodes or raise learner.max_staleness"
    )


def _lost_share(record: StepRecord) -> float:
    """Share of the episodes that were dropped, of those that are over."""
    lost = sum(_losses(record).values())
    return lost / max(1, lost + record.trajectories_trained)


def _losses(record: StepRecord) -> dict[str, int]:
    """Episodes dropped by reason, but for those that a filter leaves out on purpose."""
    return {reason: n for reason, n in record.dropped.items() if reason != "no_signal"}


_NOTHING = "nothing is learned"
_SIGNS = (
    _Sign("dropped", "most episodes are lost", lambda r: _lost_share(r) >= LOST, _lost),
    _Sign("unparsable", _NOTHING, lambda record: record.parsed_share <= FEW, _unparsable),
    _Sign("failing_cells", _NOTHING, lambda record: record.cells_ok_share <= FEW, _failing_cells),
    _Sign("no_signal", _NOTHING, lambda record: record.signal_share <= 0, _no_signal),
)


def _mean(records: Sequence[StepRecord], name: str) -> float:
    return sum(float(getattr(record, name)) for record in records) / len(records)
