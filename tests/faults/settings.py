"""The run that the fault suite plays with: its sizes, and what its processes find by its folder."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from common.config import Config
from common.wire.records import Task
from tests.faults.schedules import SILENCE_S, Schedule

GROUPS, SIZE = 2, 2
BATCH = GROUPS * SIZE
CHECKPOINT_EVERY = 2
TASKS = tuple(Task(task_id=f"t{i}", question=f"What is {i}?", answers=(str(i),)) for i in range(5))
MODEL = Path(__file__).parents[2] / "launch" / "presets" / "warmstart"

SETTINGS, CONFIG, RESULT, ALERTS = "settings.json", "config.json", "result.json", "alerts.jsonl"
VERSION = "version"
"""In the private folder: what the policy servers sample with."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the processes are told, beside the plan.

    Attributes:
        doors: folder of the relays' sockets: ``coordinator`` and ``s0``.
        gate: file with the number of steps that may be trained so far.
        slow: file that is there while the disk is slow.
    """

    whole: bool
    twice: bool
    actors: int
    bound: int
    steps: int
    doors: str

    @property
    def gate(self) -> Path:
        return Path(self.doors) / "gate"

    @property
    def slow(self) -> Path:
        return Path(self.doors) / "slow"


def settings_of(schedule: Schedule, doors: Path) -> Settings:
    """What the processes have to know of a schedule: not what is done to them."""
    return Settings(
        whole=schedule.whole, twice=schedule.twice, actors=schedule.actors, bound=schedule.bound,
        steps=schedule.steps, doors=str(doors),
    )  # fmt: skip


def save_settings(settings: Settings, folder: Path) -> None:
    """For all processes of the run in ``folder``."""
    (folder / SETTINGS).write_text(json.dumps(dataclasses.asdict(settings)))


def load_settings(folder: Path) -> Settings:
    """What ``save_settings`` wrote."""
    return Settings(**json.loads((folder / SETTINGS).read_text()))


def config_of(settings: Settings, folder: Path) -> Config:
    """The configuration that a run of the product would have."""
    config = Config()
    return dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, name=folder.name, folder=str(folder.parent)),
        model=dataclasses.replace(config.model, path=str(MODEL), max_context=4096),
        agent=dataclasses.replace(
            config.agent, max_action_tokens=512, tools=("submit_final_answer",)
        ),
        actors=dataclasses.replace(config.actors, processes=settings.actors, episodes=4),
        transport=dataclasses.replace(config.transport, silence_s=SILENCE_S),
        kernel=dataclasses.replace(config.kernel, preload_numpy=False, idle=1),
    )
