"""A first signal asks, its echo says nothing new, and a later one is told from it."""

import os
import signal
import subprocess
import sys

import pytest

from common.stopping import ECHO_S, EXIT_RESUME, StopRequest


def test_a_second_signal_is_told_from_the_echo_of_the_first() -> None:
    now = 100.0
    request = StopRequest(clock=lambda: now)

    assert not request.asked
    assert request.left_s(30) == 30
    assert [request.note() for _ in range(2)] == [False, False]
    assert request.asked
    now += ECHO_S + 1
    assert request.left_s(30) == 29 - ECHO_S
    assert request.note()
    now += 100
    assert request.left_s(30) == 0


def test_the_status_is_the_one_for_a_temporary_failure() -> None:
    assert EXIT_RESUME == os.EX_TEMPFAIL == 75


LISTENING = """
import itertools, sys
from common.stopping import stop_request
request = stop_request()
for line in itertools.chain(["ready"], sys.stdin):
    print(line.strip(), request.asked, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_is_asked_and_lives_on_however_often(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready False\n"
        for _ in range(2):
            process.send_signal(number)
            process.stdin.write("and now\n")
            process.stdin.flush()
            assert process.stdout.readline() == "and now True\n"

    assert process.returncode == 0
