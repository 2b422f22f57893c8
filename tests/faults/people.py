"""The processes of a run, by their roles; and whether anything of them is left."""

from pathlib import Path

from benchmarks.process_tree import Process, descendants
from tests.faults.schedules import Role

WORDS: dict[Role, tuple[str, ...]] = {
    "actor": ("tests.faults.actor", "actors.main"),
    "kernels": ("actors.kernels.sandboxed.zygote",),
    "judge": ("actors.rewards.judge.worker",),
    "server": ("tests.integration.scripted_server", "actors.inference.server"),
    "learner": ("tests.faults.learner", "learner.main"),
}
"""Modules that a process of the role runs."""
_ABOVE = ("guard.py", "bwrap", "launch.starters")
"""In the command lines of those that hold a process, and have its words in theirs."""


def of_role(starter: int, role: Role) -> Process | None:
    """The first process of a role; None while there is none."""
    for process in sorted(descendants(starter), key=lambda one: one.started):
        words = command_line(process.pid)
        if any(module in words for module in WORDS[role]) and not any(
            Path(word).name in _ABOVE or word.startswith("launch.starters") for word in words
        ):
            return process
    return None


def command_line(pid: int) -> list[str]:
    """Its words; none of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
