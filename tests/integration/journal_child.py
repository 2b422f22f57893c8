"""A learner with a scripted policy that is killed again and again, and one that is not.

``python journal_child.py FOLDER [SEED|ranks]``: every life is a process of its own, forked before
torch has started a thread. ``FOLDER/plain`` is trained in one life, ``FOLDER/killed`` in one more
than there are ``KILLS``, or, with a seed, is killed at random times; with ``ranks`` two ranks live
the last life again, in ``FOLDER/ranks``. A life that ends leaves ``result.json``.
"""

import functools
import json
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.places import RENDEZVOUS
from common.wire.records import TaskLease, Trajectory
from learner.checkpoints.checkpointer import Checkpointer
from learner.checkpoints.state import Progress
from tests.integration.learner_life import Life, with_steps
from tests.integration.test_synchronous_training import Servers, scripted
from tests.tiny_policy import make_model

STEPS = 7
EVERY = 3
"""Steps between checkpoints."""
MODEL = "model"


@dataclass(frozen=True)
class Kill:
    """The moment of a ``SIGKILL``.

    Attributes:
        at: what is about to happen: ``publish`` a version, ``answer`` a lease, ``saved`` a step;
            or ``time``.
        number: which of them, in this life; of a version or step, its number; milliseconds.
    """

    at: str
    number: int


KILLS = (
    Kill("answer", 3),  # nothing was trained
    Kill("publish", 2),  # two steps trained, no checkpoint
    Kill("saved", 3),  # the checkpoint is being written
    Kill("publish", 5),
    Kill("publish", 7),  # all is trained, the last checkpoint is not written
)


class Mortal:
    """Dies at its moment."""

    def __init__(self, kill: Kill | None) -> None:
        self.kill = kill
        if kill is not None and kill.at == "time":
            timer = threading.Timer(kill.number / 1000, self.reaches, (kill.at, kill.number))
            timer.daemon = True
            timer.start()

    def reaches(self, at: str, number: int) -> None:
        if self.kill == Kill(at, number):
            os.kill(os.getpid(), signal.SIGKILL)


class MortalServers(Servers):
    """Policy servers that take every version at once, unless the learner dies before."""

    def __init__(self, mortal: Mortal) -> None:
        super().__init__()
        self.mortal = mortal

    def publish(self, version: int, state: Mapping[str, Tensor]) -> Servers:
        self.mortal.reaches("publish", version)
        return super().publish(version, state)


class MortalSaver:
    def __init__(self, saver: Checkpointer, mortal: Mortal) -> None:
        self.saver, self.mortal = saver, mortal

    def save(self, progress: Progress) -> None:
        self.saver.save(progress)
        self.mortal.reaches("saved", progress.step)

    def is_busy(self) -> bool:
        return self.saver.is_busy()

    def finish(self) -> None:
        self.saver.finish()


def player(folder: Path, mortal: Mortal) -> Callable[[TaskLease, int], Trajectory]:
    """The scripted policy; every answer is in ``sampled.txt``, whoever dies."""
    answered = 0

    def play(lease: TaskLease, version: int) -> Trajectory:
        nonlocal answered
        answered += 1
        mortal.reaches("answer", answered)
        with (folder / "sampled.txt").open("a") as lines:
            lines.write(f"{lease.lease_id}\n")
        return scripted(lease, version)

    return play


def live(folder: Path, model_folder: Path, kill: Kill | None, *, resume: bool) -> None:
    """One life of a learner's rank, from what the lives before have left."""
    mortal = Mortal(kill)
    life = Life(
        folder=folder, model_folder=model_folder, config=with_steps(STEPS), every=EVERY,
        resume=resume, servers=MortalServers(mortal), play=player(folder, mortal), tell=print,
        saver_of=lambda saver: MortalSaver(saver, mortal), keep_journal=folder.name == "killed",
    )  # fmt: skip
    assert life.run()
    if not life.servers.digests:
        return  # of another rank than the first
    result = {
        "digest": life.servers.digests[-1], "started": life.counters.started,
        "trained": life.counters.trained, "dropped": dict(life.counters.dropped),
        "replayed": life.replayed, "first_step": life.first_step,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result))


def in_a_process(folder: Path, model_folder: Path, kill: Kill | None, *, resume: bool) -> int:
    """Live in a forked process; the signal that ended it, or 0."""
    return ended(forked(lambda: live(folder, model_folder, kill, resume=resume)))


def on_two_ranks(folder: Path, model_folder: Path) -> None:
    """Go on with two ranks to the end."""

    def rank(index: int) -> None:
        os.environ |= {"RANK": str(index), "WORLD_SIZE": "2", RENDEZVOUS: f"file://{folder}/store"}
        live(folder, model_folder, None, resume=True)

    children = [forked(functools.partial(rank, index)) for index in range(2)]
    assert [ended(child) for child in children] == [0, 0]


def forked(life: Callable[[], None]) -> int:
    """The id of a process that lives and ends."""
    child = os.fork()
    if not child:
        try:
            life()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


def ended(child: int) -> int:
    """The signal that ended a process, or 0."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    assert os.WEXITSTATUS(status) == 0, "a life failed"
    return 0


RANDOM_KILLS, LONGEST_LIFE_MS = 12, 2000


def main(folder: Path, seed: int | None = None, *, ranks: bool = False) -> None:
    """Train twice, once killed again and again."""
    torch.set_num_threads(1)
    model_folder = folder / MODEL
    make_model(model_folder)
    for name in ("plain", "killed"):
        (folder / name).mkdir()
    assert in_a_process(folder / "plain", model_folder, None, resume=False) == 0
    rng = random.Random(seed)
    times = [Kill("time", rng.randrange(LONGEST_LIFE_MS)) for _ in range(RANDOM_KILLS)]
    for number, kill in enumerate(KILLS if seed is None else times):
        by = in_a_process(folder / "killed", model_folder, kill, resume=number > 0)
        if kill.at == "time" and not by:
            return
        assert by == signal.SIGKILL, f"{kill} was never reached"
    if ranks:
        shutil.copytree(folder / "killed", folder / "ranks")
        on_two_ranks(folder / "ranks", model_folder)
    assert in_a_process(folder / "killed", model_folder, None, resume=True) == 0


if __name__ == "__main__":
    if sys.argv[2:] == ["ranks"]:
        main(Path(sys.argv[1]), ranks=True)
    else:
        main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
