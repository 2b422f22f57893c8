"""``lzero sft`` shows what its ranks tell, and nothing of what libraries write between."""

import os
import subprocess
import sys
from pathlib import Path

from common.child_process import module_environment
from launch.run.fine_tune import LogFollower

PROGRAM = """
import logging, sys
from common.telemetry.log_lines import configure_logging
configure_logging("sft", force=False)
for line in sys.argv[1:]:
    logging.getLogger("learner.sft.main").warning(line)
    print("[W1127 socket.cpp:207] noise", file=sys.stderr)
"""


def told(log: Path, *lines: str) -> None:
    with log.open("ab") as file:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, *lines], stderr=file, check=True,
            env=module_environment(os.environ),
        )  # fmt: skip


def test_lines_of_progress_are_shown_once_and_from_this_start_on(tmp_path: Path) -> None:
    log, shown = tmp_path / "log", list[str]()
    told(log, "of an earlier start")
    follower = LogFollower(log, shown.append)

    told(log, "trained step=1 of=2 loss=0.5")
    follower.tick()
    told(log, "trained step=2 of=2 loss=0.4", "wrote model path=out loss=0.4")
    follower.tick()
    follower.tick()

    assert shown == [
        "sft trained step=1 of=2 loss=0.5",
        "sft trained step=2 of=2 loss=0.4",
        "sft wrote model path=out loss=0.4",
    ]
