"""A run that learns nothing says so, with numbers and what to do."""

import re
from typing import Any

import pytest

from common.telemetry.alerts import find_alerts, present_alerts
from tests.step_records import make_record

SILENT = {"signal_share": 0.0, "parsed_share": 0.0, "reward": -0.1}


def records(*changes: dict[str, Any]) -> list[Any]:
    return [make_record(number, **change) for number, change in enumerate(changes, start=1)]


def test_a_healthy_run_has_no_alert() -> None:
    assert find_alerts(records(*[{}] * 50), steps=50) == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (
            {"dropped": {"infrastructure:RewardError": 90, "late": 2, "no_signal": 900}},
            "dropped",
            r"^most episodes are lost: in steps 1 to 4 74% of the episodes so far were dropped "
            r"\(infrastructure:RewardError 90, late 2\); .*'failure'",
        ),
        (
            {"parsed_share": 0.01},
            "unparsable",
            "^nothing is learned: in steps 1 to 4 99% of the actions do not parse, .*; "
            ".*warm start.*rewards.terms",
        ),
        (
            {"cells_ok_share": 0.0},
            "failing_cells",
            "in steps 1 to 4 100% of the cells ended in an error or not at all; look at",
        ),
        (
            {"signal_share": 0.0, "reward": -0.1},
            "no_signal",
            r"no group had a signal: .*\(mean reward -0.1, 0% of the answers right\).*easier tasks",
        ),
        (
            {"signal_share": 0.0, "reward": 1.0, "exact_match": 1.0},
            "no_signal",
            r"\(mean reward 1, 100% of the answers right\).*; use harder tasks",
        ),
    ],
)
def test_a_sign_that_holds_for_some_steps_is_an_alert(
    change: dict[str, Any], kind: str, words: str
) -> None:
    assert find_alerts(records(*[change] * 3), steps=40) == []

    (alert,) = find_alerts(records(*[change] * 4), steps=40)

    assert (alert.kind, alert.first, alert.last) == (kind, 1, 4)
    assert re.search(words, alert.text), alert.text


def test_the_most_basic_cause_comes_first() -> None:
    found = find_alerts(records(*[SILENT] * 4), steps=4)

    assert [alert.kind for alert in found] == ["unparsable", "no_signal"]


def test_a_short_run_needs_all_its_steps() -> None:
    assert find_alerts(records(SILENT), steps=2) == []
    assert len(find_alerts(records(SILENT, SILENT), steps=2)) == 2


def test_what_is_over_is_told_of_the_run_but_not_of_the_moment() -> None:
    seen = records(*[SILENT] * 6, {}, {}, *[SILENT] * 4)

    assert {(alert.first, alert.last) for alert in find_alerts(seen, steps=40)} == {(1, 6)}
    assert {(alert.first, alert.last) for alert in present_alerts(seen, steps=40)} == {(9, 12)}
    assert present_alerts(seen[:8], steps=40) == present_alerts([], steps=40) == []
