"""Scores the policy servers' weights: ``python -m actors.evaluate --suites ...``.

Runs every suite of a list with the same agent, kernels and tools as training, and no learner. Only
servers that sample with the version that is to be scored are asked; a version that changes under
way is an error.
"""

import argparse
import asyncio
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import uvloop

from actors.asked import RetryableError, UnreachableError
from actors.episode import EpisodeRunner
from actors.hosted import HostLine
from actors.kernels.launchers import make_launcher
from actors.kernels.pool import KernelPool
from actors.tools.started import run_corpora, started_tools
from actors.wiring import make_policy, make_runner, started_judge, token_conversations
from common.config import Config
from common.config_file import load_config
from common.episode_record import evaluation_record, record_line
from common.errors import LZeroError, PolicyMismatchError, PolicyServerError
from common.evaluation import (
    FamilyScore,
    Suite,
    SuiteScore,
    family_of,
    first_of_each_family,
    read_suites,
    write_score,
)
from common.places import EVALUATION, RunPlan, ServerPlace
from common.plan_file import load_plan, own_keys
from common.task_rules import task_rules
from common.tasks import read_tasks
from common.telemetry.log_lines import configure_logging
from common.wire.generation import UNPUBLISHED
from common.wire.records import Outcome, Purpose, Task, TaskLease, Trajectory
from common.wire.sockets import Wire

log = logging.getLogger(__name__)

_ANSWER_S = 20.0
"""Longest wait for a server that is asked for its version."""
_START_S, _AGAIN_S = 300.0, 0.5
"""Longest wait for servers that cannot be reached, and how long until they are asked again."""


async def run_suite(
    suite: Suite, tasks: Sequence[Task], runner: EpisodeRunner, *, in_flight: int
) -> list[Trajectory]:
    """One episode per task, at most ``in_flight`` at once, in the order of ``tasks``."""
    places = asyncio.Semaphore(in_flight)

    async def one(number: int, task: Task) -> Trajectory:
        async with places:
            return await runner.run(
                TaskLease(
                    lease_id=f"{suite.name}-{number}",
                    group_id=suite.name,
                    sample_index=number,
                    purpose=Purpose.EVALUATE,
                    temperature=suite.temperature,
                    task=task,
                )
            )

    return list(await asyncio.gather(*(one(n, task) for n, task in enumerate(tasks))))


def pinned_version(suite: Suite, trajectories: Sequence[Trajectory]) -> int:
    """The one weight version that sampled every token.

    Raises:
        PolicyMismatchError: there were several.
    """
    versions = {
        int(version)
        for trajectory in trajectories
        for segment in trajectory.segments
        for version in set(segment.versions.tolist())
        if version >= 0
    }
    if len(versions) > 1:
        raise PolicyMismatchError(
            f"evaluation '{suite.name}' was sampled by several weight versions: "
            f"{sorted(versions)}; the policy server must not be updated while it runs"
        )
    return versions.pop() if versions else 0


def family_scores(
    tasks: Sequence[Task], trajectories: Sequence[Trajectory]
) -> dict[str, FamilyScore]:
    """Mean scores by family; episodes lost to infrastructure are counted apart."""
    by_family: dict[str, list[Trajectory]] = defaultdict(list)
    for task, trajectory in zip(tasks, trajectories, strict=True):
        by_family[family_of(task)].append(trajectory)
    return {family: _score(members) for family, members in sorted(by_family.items())}


def _score(members: Sequence[Trajectory]) -> FamilyScore:
    kept = [t for t in members if t.outcome is not Outcome.INFRASTRUCTURE]

    def mean(name: str) -> float:
        return fmean(t.scores[name] for t in kept) if kept else 0.0

    return FamilyScore(
        n=len(kept),
        exact_match=mean("exact_match"),
        contains=mean("contains"),
        f1=mean("f1"),
        submitted=mean("submitted"),
        mean_steps=fmean(len(t.steps) for t in kept) if kept else 0.0,
        dropped=len(members) - len(kept),
    )


def write_episodes(
    path: Path, tasks: Sequence[Task], trajectories: Sequence[Trajectory], version: int
) -> None:
    """One line per episode: the task and what was done."""
    with path.open("w", encoding="utf-8") as file:
        for task, trajectory in zip(tasks, trajectories, strict=True):
            file.write(record_line(evaluation_record(task, trajectory, version)))


async def servers_with(
    version: int, servers: Sequence[ServerPlace], wire: Wire
) -> list[ServerPlace]:
    """The servers that say that they sample with ``version``.

    While none does and some cannot be reached, they are asked again: they may be starting.

    Raises:
        PolicyServerError: none does; says what each says.
    """
    deadline = time.monotonic() + _START_S
    while True:
        said = [await _version_of(place, wire) for place in servers]
        found = [place for place, one in zip(servers, said, strict=True) if one == str(version)]
        are_starting = any(isinstance(one, UnreachableError | TimeoutError) for one in said)
        if found:
            return found
        if not are_starting or time.monotonic() > deadline:
            raise _no_server_with(version, servers, said)
        await asyncio.sleep(_AGAIN_S)


def _no_server_with(
    version: int, servers: Sequence[ServerPlace], said: Sequence[str | Exception]
) -> PolicyServerError:
    listed = "; ".join(
        f"{place.name}: {f'no answer, {one!r}' if isinstance(one, Exception) else one}"
        for place, one in zip(servers, said, strict=True)
    )
    return PolicyServerError(
        f"no policy server samples with weights of version {version}, which are to be "
        f"evaluated ({listed}); resume the run: it starts its servers with the weights that it "
        "saved last"
    )


async def _version_of(place: ServerPlace, wire: Wire) -> str | Exception:
    """The number of its weights, or another label; else why it gave no answer."""
    line = HostLine(wire, place.address, who=EVALUATION)
    try:
        async with asyncio.timeout(_ANSWER_S):
            label = (await line.state()).version
    except (RetryableError, TimeoutError) as error:
        return error
    finally:
        await line.close()
    return "0" if label == UNPUBLISHED else label


async def evaluate(
    config: Config, plan: RunPlan, suites: Sequence[Suite], out: Path, *, version: int
) -> None:
    """Run every suite and write its score and its episodes."""
    wire = Wire(own_keys(plan, EVALUATION))
    servers = await servers_with(version, plan.servers, wire)
    policy = make_policy(config, servers, wire, who=EVALUATION)
    kernels = KernelPool(make_launcher(config.kernel), idle=config.kernel.idle)
    try:
        await kernels.start()
        async with started_judge(config, kernels) as judge:
            for suite in suites:
                tasks = read_tasks(Path(suite.tasks), rules=task_rules(config))
                corpora = dict.fromkeys((*run_corpora(config), "unseen"), suite.corpus)
                async with started_tools(
                    config, corpora, search_disabled=suite.search_disabled
                ) as tools:
                    runner = make_runner(
                        config,
                        actor_id="evaluate",
                        conversations=token_conversations(config, policy),
                        kernels=kernels,
                        tools=tools,
                        judge=judge,
                        folders=(Path(suite.tasks).parent,),
                    )
                    await evaluate_suite(
                        suite, tasks, runner, out, in_flight=config.actors.episodes
                    )
    finally:
        await kernels.close()
        await policy.close()
        wire.close()


async def evaluate_suite(
    suite: Suite, given: Sequence[Task], runner: EpisodeRunner, out: Path, *, in_flight: int
) -> None:
    """Run one suite over its share of the given tasks and write its score and its episodes."""
    tasks = first_of_each_family(given, suite.per_family)
    started = time.monotonic()
    trajectories = await run_suite(suite, tasks, runner, in_flight=in_flight)
    version = pinned_version(suite, trajectories)
    score = SuiteScore(
        suite=suite,
        weight_version=version,
        seconds=time.monotonic() - started,
        families=family_scores(tasks, trajectories),
    )
    write_episodes(out / f"{suite.name}.jsonl", tasks, trajectories, version)
    write_score(score, out / f"{suite.name}.json")
    _report(score)


def _report(score: SuiteScore) -> None:
    shares = ", ".join(
        f"{family} {100 * result.exact_match:.1f} % of {result.n}"
        for family, result in score.families.items()
    )
    sys.stdout.write(f"{score.suite.name}: {shares} ({score.seconds:.1f} s)\n")
    sys.stdout.flush()


def main() -> int:
    """Parse arguments and run; 2 for an expected error."""
    parser = argparse.ArgumentParser(prog="python -m actors.evaluate", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--plan", type=Path, required=True, help="plan of the run")
    parser.add_argument("--suites", type=Path, required=True, help="suites, a JSON list")
    parser.add_argument("--version", type=int, required=True, help="of the weights")
    parser.add_argument("--out", type=Path, required=True, help="folder for the scores")
    arguments = parser.parse_args()
    configure_logging("evaluate")
    try:
        config = load_config(arguments.config)
        arguments.out.mkdir(parents=True, exist_ok=True)
        plan, suites = load_plan(arguments.plan), read_suites(arguments.suites)
        uvloop.run(evaluate(config, plan, suites, arguments.out, version=arguments.version))
    except LZeroError as error:
        log.error("%s", error)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
