"""What the local starter watches of each planned process: when it is ready, how its log is read."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from common.config import Config
from common.places import LEARNER, ProcessPlan, RunPlan
from common.plan_file import (
    forget_ending,
    told_coordinator,
    told_ending,
    told_ready,
    told_stopped,
    told_welcomed,
)
from launch.plan.topology import ACTOR, MEETING_FILES, rank_environment, rank_processes
from launch.starters.child import ProcessSpec
from launch.starters.ends import describe_exit
from launch.starters.private import compiled_before

LEARNER_READY_S = 180.0
ACTOR_DRAIN_S = 30.0
"""How long an actor may take to end by itself after the learner has."""

_OWN_NETWORK = (
    sys.executable, "-I", "-S", str(Path(__file__).with_name("own_network.py")),
)  # fmt: skip

_TORCHRUN = "torch/distributed/elastic"
_RANK_FAILED = re.compile(rf"{_TORCHRUN}.*exitcode: (?P<status>-?\d+)\) local_rank: (?P<rank>\d+)")

_HUNG = re.compile(
    r"Watchdog caught collective operation timeout: .*OpType=(?P<operation>\w+)"
    r".*ran for (?P<ms>\d+) milliseconds"
)


def policy_servers(plan: RunPlan, config: Config, logs: Path) -> list[ProcessSpec]:
    """The policy servers, each ready when it has said that it samples."""
    servers = [process for process in plan.processes if process.role == "policy-server"]
    return [
        dataclasses.replace(
            _started(process, logs),
            is_ready=partial(told_ready, plan, place.name),
            ready_timeout_s=config.policy_server.ready_timeout_s,
            is_restarted=True,
            kind=process.role,
        )
        for process, place in zip(servers, plan.servers, strict=True)
    ]


def learner(plan: RunPlan, logs: Path, *, grace_s: float, hint: Callable[[], str]) -> ProcessSpec:
    """The learner's ranks, ready when the coordinator listens; they end in order in ``grace_s``.

    One that ended goes on from what it left (``learner.main``), unless it said that it would only
    end again.
    """
    (process,) = (process for process in plan.processes if process.role == "learner")
    return dataclasses.replace(
        _started(process, logs),
        is_ready=lambda: told_coordinator(plan) is not None,
        ready_timeout_s=LEARNER_READY_S,
        order_s=grace_s,
        has_stopped=partial(told_stopped, plan),
        hint=hint,
        noise=_TORCHRUN,
        explain=explain_torchrun,
        is_restarted=True,
        begin=partial(_forget_earlier_learner, plan),
        cause=partial(_reason, plan, LEARNER),
        would_end_again=partial(_is_final, plan, LEARNER),
    )


def actors(
    plan: RunPlan, logs: Path, *, grace_s: float, hint: Callable[[], str]
) -> list[ProcessSpec]:
    """The rollout processes; they hand back what they hold, in ``grace_s``, if they are told."""
    return [
        dataclasses.replace(
            _started(process, logs),
            order_s=grace_s,
            hint=hint,
            is_restarted=True,
            kind=process.role,
            has_worked=partial(told_welcomed, plan, name),
            begin=partial(forget_ending, plan, name),
            cause=partial(_reason, plan, name),
        )
        for process in plan.processes
        if process.role == "actor"
        for name in (process.name.removeprefix(ACTOR),)
    ]


def evaluation(process: ProcessPlan, logs: Path) -> ProcessSpec:
    """One evaluation against the running policy servers."""
    return _started(process, logs)


def fine_tuning(
    name: str,
    module: Sequence[str],
    *,
    ranks: int,
    threads: int,
    private: Path,
    log: Path,
    hint: Callable[[], str],
) -> ProcessSpec:
    """Ranks that train together without a run around them; see ``rank_processes``."""
    return ProcessSpec(
        name=name,
        command=_OWN_NETWORK + rank_processes(*module, ranks=ranks, private=private),
        log=log,
        env=dict(rank_environment(threads, private=private)) | compiled_before(),
        hint=hint,
        noise=_TORCHRUN,
        explain=explain_torchrun,
    )


def explain_torchrun(line: str) -> str:
    """A log line of the learner; torchrun's notice of a failed rank, and NCCL's, in words."""
    if (hung := _HUNG.search(line)) is not None:
        return (
            f"a collective operation hung ({hung['operation']}): not every rank came to it within "
            f"{int(hung['ms']) / 1000:.0f} s; see what the other ranks said last"
        )
    match = _RANK_FAILED.search(line)
    if match is None:
        return line
    return f"rank {match['rank']} {describe_exit(int(match['status']))}"


def own_network_works() -> bool:
    """Whether the machine lets processes have a network of their own."""
    return subprocess.run(_OWN_NETWORK, check=False).returncode == 0


def _forget_earlier_learner(plan: RunPlan) -> None:
    """Ranks meet anew, in fresh files; nobody of the earlier life is there any more."""
    forget_ending(plan, LEARNER)
    for pattern in MEETING_FILES:
        for file in Path(plan.private).glob(pattern):
            file.unlink()


def _reason(plan: RunPlan, member: str) -> str:
    word = told_ending(plan, member)
    return "" if word is None else word.reason


def _is_final(plan: RunPlan, member: str) -> bool:
    word = told_ending(plan, member)
    return word is not None and word.is_final


def _started(process: ProcessPlan, logs: Path) -> ProcessSpec:
    return ProcessSpec(
        name=process.name,
        command=(*(_OWN_NETWORK if process.own_network else ()), *process.command),
        log=logs / f"{process.name}.log",
        env=dict(process.environment) | compiled_before(),
    )
