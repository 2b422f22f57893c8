"""The processes of a run by what they do: the modules in their command lines tell."""

from collections.abc import Collection
from pathlib import Path

from benchmarks.process_tree import Process, descendants

MODULES: dict[str, tuple[str, ...]] = {
    "actor": ("actors.main",),
    "kernels": ("actors.kernels.sandboxed.zygote",),
    "server": ("actors.inference.server",),
    "engine": ("EngineCore",),
    "learner": ("learner.main",),
}
"""Whose death a run survives by itself; the engine is the vLLM of a policy server. With several
ranks, one of them stands for the learner."""
_HOLDERS = ("guard.py", "bwrap", "own_network.py", "launch.starters.ranks")
"""Who has the command line of another in its own, and is not that other."""


def process_of(starter: int, modules: Collection[str]) -> Process | None:
    """The oldest process below ``starter`` that has one of ``modules`` in its command line."""
    for process in sorted(descendants(starter), key=lambda one: one.started):
        words = command_line(process.pid)
        is_it = any(module in word for module in modules for word in words)
        if is_it and not any(Path(word).name in _HOLDERS for word in words):
            return process
    return None


def command_line(pid: int) -> list[str]:
    """The words of a process; none of one that is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
