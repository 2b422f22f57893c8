"""A coordinator that was killed finds its actors again, and what they held; real processes."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.places import Address
from common.plan_file import keys_file
from common.wire.keys import write_key_pair
from common.wire.sockets import new_key_pair
from learner.coordination.groups import MAX_ATTEMPTS
from tests.integration.coordinator_child import GROUPS, SIZE
from tests.waiting import wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
CREDIT = 4
BATCH = GROUPS * SIZE


class Run:
    """A coordinator and an actor in processes of their own, which are killed and begun again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        learner, actor = new_key_pair(), new_key_pair()
        write_key_pair(keys_file(folder, "learner"), learner)
        write_key_pair(keys_file(folder, "a0"), actor)
        place = Address(bind=str(folder / "door"))
        self.address = json.dumps(dataclasses.asdict(place))
        known = dataclasses.replace(place, key=learner.public)
        self.reached_at = json.dumps(dataclasses.asdict(known))
        self.processes: list[subprocess.Popen[bytes]] = []

    def coordinator(self) -> subprocess.Popen[bytes]:
        return self._start("coordinator_child.py", str(self.folder), self.address)

    def actor(self, behaviour: str) -> subprocess.Popen[bytes]:
        keys = str(keys_file(self.folder, "a0"))
        return self._start(
            "link_child.py", self.reached_at, keys, "a0", behaviour, str(self.folder / "begun")
        )

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        child = str(Path(__file__).with_name(name))
        self.processes.append(
            subprocess.Popen(
                [sys.executable, child, *arguments],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                env={"PYTHONPATH": str(REPOSITORY)},
            )
        )
        return self.processes[-1]

    def begun(self) -> list[str]:
        """Leases whose episodes were begun, in order."""
        file = self.folder / "begun"
        return file.read_text().split() if file.exists() else []

    def wait_for_begun(self, count: int) -> None:
        wait_for(lambda: len(self.begun()) == count, timeout_s=60)

    def result(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "result.json").read_text()))

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    running = Run(tmp_path)
    yield running
    running.end()


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(timeout=20)


def let_finish(actor: subprocess.Popen[bytes]) -> None:
    assert actor.stdin is not None
    actor.stdin.write(b"go\n")
    actor.stdin.flush()


@pytest.mark.parametrize("when", ["while it is away", "when it is back"])
def test_what_an_actor_holds_is_adopted_and_accepted_exactly_once(run: Run, when: str) -> None:
    killed = run.coordinator()
    actor = run.actor("first")
    run.wait_for_begun(CREDIT + 1)  # so the first is in the journal

    kill(killed)
    if when == "while it is away":
        let_finish(actor)
    again = run.coordinator()
    if when == "when it is back":
        let_finish(actor)

    assert again.wait(timeout=60) == 0
    assert actor.wait(timeout=20) == 0
    result = run.result()
    assert sorted(run.begun()) == sorted(result["batch"])
    assert len(set(result["batch"])) == BATCH
    assert all(lease_id.endswith("-1") for lease_id in result["batch"])
    assert result["dropped"] == {}
    assert result["counts"] == [BATCH] * 3


def test_kills_of_both_use_up_no_try(run: Run) -> None:
    for number in range(1, MAX_ATTEMPTS + 2):
        coordinator, actor = run.coordinator(), run.actor("silent")
        run.wait_for_begun(number * CREDIT)
        kill(coordinator)
        kill(actor)

    last, actor = run.coordinator(), run.actor("once")

    assert last.wait(timeout=60) == 0
    assert actor.wait(timeout=20) == 0
    result = run.result()
    assert len(result["batch"]) == BATCH, "no member was given up"
    assert result["dropped"] == {"lost_at_restart": (MAX_ATTEMPTS + 1) * CREDIT}
