"""``lzero sft``: supervised fine-tuning on one machine, with as many ranks as configured."""

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from common.errors import InputError
from launch.models.model_checks import check_model
from launch.outputs import written
from launch.run.choices import choose_for_sft
from launch.run.folder import newest_checkpoint
from launch.run.preflight import locate_model
from launch.screen import say
from launch.starters import specs
from launch.starters.child import ProcessSpec
from launch.starters.local import Supervisor, interruptible
from launch.starters.private import fresh_folder
from learner.sft.config import Sft

SFT = "sft"
_OURS = r"[\d-]+ [\d:]+ {name} \w+ (?P<what>.*)"
"""A line that ranks of ours log; those of the libraries begin otherwise."""


def fine_tune(
    config: Sft,
    console: Console,
    *,
    show: Callable[[str], None] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Check the input, start the ranks, show their progress, wait for them.

    Args:
        config: of the fine-tuning.
        console: where lines of progress are said, unless ``show`` takes them.
        show: gets each line of progress.
        tick: called several times a second.

    Raises:
        InputError: model or traces are missing, or the output cannot be written.
        RunError: a rank failed; its last lines are in the message.
        Interrupted: somebody ended it.
    """
    config = resolve(config)
    check_model(Path(config.model))
    if not Path(config.traces).is_file():
        raise InputError(f"trace file '{config.traces}' (--traces) does not exist")
    config, choices = choose_for_sft(config)
    for choice in choices:
        say(console, f"chosen: {choice}")
    output = Path(config.output)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; name a folder for the model")
    file = output.with_name(output.name + ".sft.json")
    with written(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        config.save(file)
    log = output.with_name(output.name + ".sft.log")
    follower = LogFollower(log, show or partial(say, console))

    def look() -> None:
        follower.tick()
        tick()

    with interruptible(), fresh_folder() as private, Supervisor(tick=look) as supervisor:
        supervisor.spawn(sft_process(config, file, private=private, log=log))
        supervisor.finish(SFT)
    follower.tick()


def resolve(config: Sft) -> Sft:
    """The configuration with absolute paths."""
    return dataclasses.replace(
        config,
        model=str(locate_model(config.model)),
        traces=str(Path(config.traces).expanduser().resolve()),
        output=str(Path(config.output).expanduser().resolve()),
        checkpoints=str(config.checkpoint_folder.expanduser().resolve()),
    )


def sft_process(config: Sft, file: Path, *, private: Path, log: Path) -> ProcessSpec:
    """The ranks, started as the learner's are."""
    return specs.fine_tuning(
        SFT,
        ("learner.sft.main", "--config", str(file)),
        ranks=config.ranks,
        threads=config.threads,
        private=private,
        log=log,
        hint=lambda: how_to_go_on(config),
    )


def how_to_go_on(config: Sft) -> str:
    """What to do after a failure; empty where no checkpoint was left to go on from."""
    if newest_checkpoint(config.checkpoint_folder) is None:
        return ""
    return "go on from the newest checkpoint by adding --resume"


class LogFollower:
    """Shows lines of progress as they appear in a log."""

    def __init__(self, log: Path, show: Callable[[str], None], *, name: str = SFT) -> None:
        """Begin at the log's present end; ``show`` gets each line of the process ``name``."""
        self._log = log
        self._name = name
        self._ours = re.compile(_OURS.format(name=re.escape(name)))
        self._show = show
        self._seen = log.stat().st_size if log.exists() else 0

    def tick(self) -> None:
        """Show what is new."""
        if not self._log.exists():
            return
        with self._log.open("rb") as file:
            file.seek(self._seen)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._seen += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            if (told := self._ours.fullmatch(line)) is not None:
                self._show(f"{self._name} {told['what']}")
