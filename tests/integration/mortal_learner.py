"""One life of a learner that somebody starts again: ``python -m tests.integration.mortal_learner``.

As ``learner.main`` it finds out by the plan whether one has lived before; its policy servers take
every version at once. The lives before count which of the deaths in ``FOLDER/deaths.json`` is due:
``["publish", 2, "self"]``, or of the ``other`` rank, of the ``agent`` above, or of ``all``.
"""

import argparse
import dataclasses
import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common.places import LEARNER, RunPlan
from common.plan_file import load_plan, own_keys, tell_coordinator
from common.whole_file import write_whole
from common.wire.sockets import Wire
from launch.starters.guard import process_parents
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.state import Progress
from learner.coordination.intake import ACTOR_LIMITS
from learner.engine.mesh import Rank
from learner.main import goes_on
from tests.integration.learner_life import Life, with_steps
from tests.integration.test_synchronous_training import Servers
from tests.wires import Place

STEPS, EVERY = 7, 3
VERSION = "version"
"""File with the version that the servers have."""


class Fate:
    """When this life ends, and who dies with it; only rank 0 knows."""

    def __init__(self, folder: Path) -> None:
        lives = folder / "lives"
        number = len(lives.read_text().split()) if lives.exists() else 0
        with lives.open("a") as lines:
            lines.write(f"{os.getpid()}\n")
        deaths = json.loads((folder / "deaths.json").read_text())
        self.death = deaths[number] if number < len(deaths) else None

    def reaches(self, at: str, number: int) -> None:
        if self.death is None or self.death[:2] != [at, number]:
            return
        me, agent = os.getpid(), os.getppid()
        ranks = [pid for pid, parent in process_parents() if parent == agent and pid != me]
        dying = {"self": [me], "other": ranks, "agent": [agent], "all": [agent, *ranks, me]}
        for pid in dying[self.death[2]]:
            os.kill(pid, signal.SIGKILL)


@dataclasses.dataclass
class MortalServers(Servers):
    """Tell the version to the actor, who lives elsewhere."""

    folder: Path = Path()
    fate: Fate | None = None

    def publish(self, version: int, state: Mapping[str, Tensor]) -> Servers:
        if self.fate is not None:
            self.fate.reaches("publish", version)
        write_whole(self.folder / VERSION, str(version))
        return super().publish(version, state)


@dataclasses.dataclass
class MortalSaver:
    saver: Checkpointer
    servers: MortalServers

    def save(self, progress: Progress) -> None:
        self.saver.save(progress)
        if self.servers.fate is not None:
            self.servers.fate.reaches("saved", progress.step)

    def is_busy(self) -> bool:
        return self.saver.is_busy()

    def finish(self) -> None:
        self.saver.finish()


@contextmanager
def the_place(plan: RunPlan) -> Iterator[Place]:
    """The door of the plan, told to those who look for it."""
    known = {member.key: member.name for member in plan.members if member.role == "actor"}
    with Wire(own_keys(plan, LEARNER)) as wire:
        door = wire.listen("coordinator", plan.coordinator, known, ACTOR_LIMITS)
        tell_coordinator(plan, door.address)
        yield Place(wire, door)


def live(plan: RunPlan, folder: Path) -> None:
    """Train to the end, or die before; leaves ``result.json``."""
    servers = MortalServers(folder=folder)

    def begin(rank: Rank) -> bool:
        if rank.is_first:
            servers.fate = Fate(folder)
        return goes_on(plan, rank, resume=False)

    life = Life(
        folder=folder, model_folder=folder / "model", config=with_steps(STEPS), every=EVERY,
        goes_on=begin, play=None, place_of=partial(the_place, plan), servers=servers,
        saver_of=lambda saver: MortalSaver(saver, servers), keep_journal=True,
    )  # fmt: skip
    assert life.run()
    if life.servers.digests:
        result = {
            "digest": life.servers.digests[-1], "started": life.counters.started,
            "trained": life.counters.trained, "dropped": dict(life.counters.dropped),
        }  # fmt: skip
        write_whole(folder / "result.json", json.dumps(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    live(load_plan(arguments.plan), arguments.folder)
