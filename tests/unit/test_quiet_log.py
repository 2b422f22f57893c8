"""A flood of one kind of line is one line and a count."""

import logging

import pytest

from common.telemetry.quiet_log import QuietLog


def test_lines_of_a_kind_are_passed_on_once_per_interval_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [100.0]
    quiet = QuietLog(logging.getLogger("test"), every_s=10.0, clock=lambda: now[0])

    for number in range(1000):
        quiet.warning("refused", "number=%d", number)
    quiet.warning("another kind", "")
    now[0] = 110.0
    quiet.warning("refused", "number=%d", 7)

    assert caplog.messages == [
        "refused number=0",
        "another kind ",
        "refused number=7 (and 999 more since the last line)",
    ]
