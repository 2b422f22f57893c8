"""The command lines, environments and readiness of the processes of a run."""

import dataclasses
import http.client
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from common.config import Config
from launch.run.folder import RunFolder
from launch.starters.local import ProcessSpec, describe_exit

POLICY_SERVER = "policy-server"
LEARNER = "learner"
LEARNER_READY_S = 180.0
ACTOR_DRAIN_S = 60.0
"""How long an actor may take to end after the learner has."""

_TORCHRUN = "torch/distributed/elastic"
_RANK_FAILED = re.compile(rf"{_TORCHRUN}.*exitcode: (?P<status>-?\d+)\) local_rank: (?P<rank>\d+)")

_QUIET = {
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}


def policy_server(config: Config, config_file: Path, logs: Path) -> ProcessSpec:
    """The vLLM server, ready when it answers /health."""
    server = config.policy_server
    return ProcessSpec(
        name=POLICY_SERVER,
        command=_python(
            "actors.inference.server", "--config", str(config_file), "--port", str(server.port)
        ),
        log=logs / f"{POLICY_SERVER}.log",
        env={**_QUIET, "OMP_NUM_THREADS": str(server.threads)},
        is_ready=lambda: answers(server.port, "/health"),
        ready_timeout_s=server.ready_timeout_s,
    )


def learner(
    config: Config, folder: RunFolder, *, resume: bool, hint: Callable[[], str]
) -> ProcessSpec:
    """The learner's ranks under torchrun, ready when the coordinator listens."""
    arguments = ["learner.main", "--config", str(folder.config)]
    arguments += ["--resume"] if resume else []
    if config.run.profile_steps:
        arguments += ["--profile-steps", str(config.run.profile_steps)]
    spec = rank_processes(
        LEARNER,
        arguments,
        ranks=config.learner.ranks,
        threads=config.learner.threads,
        log=folder.logs / f"{LEARNER}.log",
        hint=hint,
    )
    return dataclasses.replace(
        spec, is_ready=folder.learner_ready.exists, ready_timeout_s=LEARNER_READY_S
    )


def rank_processes(
    name: str,
    module: Sequence[str],
    *,
    ranks: int,
    threads: int,
    log: Path,
    hint: Callable[[], str],
) -> ProcessSpec:
    """Processes on this machine that train together, under torchrun.

    Args:
        name: of the whole.
        module: what every rank runs, with its arguments.
        ranks: how many.
        threads: of torch, in each.
        log: of all of them.
        hint: says what a person can do when one of them has failed.
    """
    torchrun = (
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=127.0.0.1:0",
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={ranks}",
        "--max-restarts=0",
        "-m",
    )
    return ProcessSpec(
        name=name,
        command=_python("torch.distributed.run", *torchrun, *module),
        log=log,
        env={**_QUIET, "OMP_NUM_THREADS": str(threads), "GLOO_SOCKET_IFNAME": "lo"},
        hint=hint,
        noise=_TORCHRUN,
        explain=explain_torchrun,
    )


def actor(
    folder: RunFolder, actor_id: str, *, coordinator: str, hint: Callable[[], str]
) -> ProcessSpec:
    """One rollout process, which works for the coordinator at that address."""
    return ProcessSpec(
        name=f"actor-{actor_id}",
        command=_python(
            "actors.main",
            "--config",
            str(folder.config),
            "--actor-id",
            actor_id,
            "--coordinator",
            coordinator,
        ),
        log=folder.logs / f"actor-{actor_id}.log",
        env={**_QUIET, "OMP_NUM_THREADS": "1"},
        hint=hint,
    )


def evaluation(name: str, config_file: Path, plan: Path, out: Path, logs: Path) -> ProcessSpec:
    """One evaluation against the running policy server."""
    return ProcessSpec(
        name=name,
        command=_python(
            "actors.evaluate",
            "--config",
            str(config_file),
            "--plan",
            str(plan),
            "--out",
            str(out),
        ),
        log=logs / f"{name}.log",
        env={**_QUIET, "OMP_NUM_THREADS": "1"},
    )


def explain_torchrun(line: str) -> str:
    """A log line of the learner; torchrun's notice of a failed rank in words."""
    match = _RANK_FAILED.search(line)
    if match is None:
        return line
    return f"rank {match['rank']} {describe_exit(int(match['status']))}"


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server on loopback answers ``path`` with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)
