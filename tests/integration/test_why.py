"""``lzero status`` and ``lzero why`` of a whole run: at work, with a stopped server, over."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_end_to_end import Command, lzero_train
from tests.integration.test_random_kills import process_of, steps_of

pytestmark = [pytest.mark.nightly, pytest.mark.slow, pytest.mark.vllm, pytest.mark.sandbox]


def lzero(*words: str) -> str:
    command = [sys.executable, "-m", "launch.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def why(command: Command) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzero("why", str(command.run), "--json"))
    return found


def is_silent(found: dict[str, Any]) -> bool:
    return bool(found["ending"] == "silent")


def test_why_names_the_policy_server_that_stands_still(tmp_path: Path) -> None:
    with lzero_train(tmp_path, "--set", "run.steps=12") as command:
        command.wait_until(lambda: steps_of(command) >= 2, "step 2")
        status = json.loads(lzero("status", str(command.run), "--json"))
        assert status["is_on"]
        assert {m["node"]["name"] for m in status["status"]["members"]} == {"s0", "a0"}

        server = process_of(command, "server")
        assert server is not None
        os.kill(server, signal.SIGSTOP)
        try:
            found: list[dict[str, Any]] = []

            def names_the_server() -> bool:
                found.append(why(command))  # on a busy machine others may be silent, too
                silent = (found[-1]["root"] or {}).get("name") if is_silent(found[-1]) else None
                return silent == "s0"

            command.wait_until(names_the_server, "the server as the root")
        finally:
            os.kill(server, signal.SIGCONT)
        assert found[-1]["sentence"].startswith("learner waits ")
        assert re.search(
            r" policy server s0\b.*, which has not answered since ", found[-1]["sentence"]
        )

        output = command.finish()
        assert command.process.returncode == 0, output
    assert "ended well, after 12 steps" in lzero("why", str(command.run))
    over = json.loads(lzero("status", str(command.run), "--json"))
    assert (over["is_on"], over["status"]["has_ended"]) == (False, True)
    assert over["sentence"] == why(command)["sentence"]


def test_why_says_of_a_run_that_failed_what_it_failed_of(tmp_path: Path) -> None:
    with lzero_train(tmp_path) as command:
        command.wait_until(lambda: steps_of(command) >= 1, "step 1")
        command.process.kill()
        command.finish()
        assert "is not running any more: its command was killed" in lzero("why", str(command.run))
