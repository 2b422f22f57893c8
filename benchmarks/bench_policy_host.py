"""A policy server's host against vLLM's own HTTP server on a Unix socket, as actors ask them.

    python -m benchmarks.bench_policy_host [--quick] [--json PATH]

Both serve the quickstart's starting model with the same engine, and are asked in turns by one
client (``actors.policy``) with prompts that share a beginning. CPU time is that of the server, all
of its processes included, and of the client, per request: it says more than the clock where
something else runs on the machine.
"""

import asyncio
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import uvloop
from rich.console import Console

from actors.asked import PolicyLine
from actors.hosted import HostLine
from actors.inference.vllm_options import is_cpu_build, vllm_command, vllm_environment
from actors.policy import PolicyClient
from benchmarks.agent.token_route import HttpLine
from benchmarks.process_tree import cpu_ms, descendants
from benchmarks.report import Report, arguments, make_report, ratio
from common.config import Config
from common.config_file import load_config, save_config
from common.places import EVALUATION
from common.plan_file import own_keys
from common.wire.sockets import Wire
from launch.plan.topology import RunFiles
from launch.run.choices import choose
from launch.starters.private import fresh_folder, make_plan
from launch.starters.specs import policy_servers

PRESET = Path(__file__).resolve().parents[1] / "launch" / "presets" / "quickstart.toml"
HOST, HTTP = "host", "http"
_START_S = 300.0
_PAUSE_S = 0.2
_SHARED, _OWN = 40, (10, 120)
"""Tokens that all prompts begin with, and how many each has of its own."""
_MOST_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How much is measured: ``requests`` in each of ``rounds``, so many ``at_once``."""

    rounds: int = 3
    requests: int = 256
    at_once: tuple[int, ...] = (32, 64)


@dataclass(frozen=True)
class Round:
    """What one round of one server took."""

    requests_per_s: float
    median_ms: float
    cpu_ms_per_request: float


@contextmanager
def host_of(config: Config, scratch: Path) -> Iterator[tuple[int, Callable[[], PolicyLine]]]:
    """The server of a run: its process, and what connects to it in a running loop."""
    path = scratch / "config.json"
    save_config(config, path)
    with fresh_folder() as private:
        plan = make_plan(config, RunFiles(config=path, private=private))
        (spec,) = policy_servers(plan, config, scratch)
        assert spec.is_ready is not None
        address, keys = plan.servers[0].address, own_keys(plan, EVALUATION)
        with (
            started(spec.command, dict(spec.env), spec.is_ready, scratch / "host.log") as pid,
            Wire(keys) as wire,
        ):
            yield pid, lambda: HostLine(wire, address, who=EVALUATION)


@contextmanager
def http_of(config: Config, scratch: Path) -> Iterator[tuple[int, Callable[[], PolicyLine]]]:
    """vLLM's own server with the same engine."""
    with fresh_folder() as private:
        socket, cpu = private / "http", is_cpu_build()
        command = vllm_command(config, ["--uds", str(socket)], cpu=cpu)
        added = vllm_environment(config, cpu=cpu, private=private, inherited={})
        with started(command, added, lambda: _answers(socket), scratch / "http.log") as pid:
            yield pid, lambda: HttpLine("http://vllm", aiohttp.UnixConnector(str(socket), limit=0))


@contextmanager
def started(
    command: Sequence[str], added: dict[str, str], is_ready: Callable[[], bool], log: Path
) -> Iterator[int]:
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **added}, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + _START_S
        while not is_ready():
            is_starting = process.poll() is None and time.monotonic() < deadline
            assert is_starting, log.read_text()[-2000:]
            time.sleep(_PAUSE_S)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _answers(socket: Path) -> bool:
    async def ask() -> bool:
        connector = aiohttp.UnixConnector(str(socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://vllm/health") as answer,
        ):
            return answer.status == 200

    try:
        return asyncio.run(ask())
    except (aiohttp.ClientError, OSError):
        return False


def prompts(seed: int, count: int, vocabulary: int = 1000) -> list[list[int]]:
    shared, own = random.Random(0), random.Random(seed)
    head = [shared.randrange(5, vocabulary) for _ in range(_SHARED)]
    return [
        head + [own.randrange(5, vocabulary) for _ in range(own.randrange(*_OWN))]
        for _ in range(count)
    ]


async def one_round(client: PolicyClient, pid: int, seed: int, at_once: int, count: int) -> Round:
    """Ask one server everything, ``at_once`` requests at a time."""
    places, took = asyncio.Semaphore(at_once), list[float]()

    async def ask(prompt: list[int]) -> None:
        async with places:
            began = time.monotonic()
            await client.generate(
                prompt, max_tokens=_MOST_TOKENS, temperature=1.0, stop_strings=["</code>"]
            )
            took.append(1000 * (time.monotonic() - began))

    pids = [pid, *(process.pid for process in descendants(pid)), os.getpid()]
    cpu, began = cpu_ms(pids), time.monotonic()
    await asyncio.gather(*(ask(prompt) for prompt in prompts(seed, count)))
    seconds = time.monotonic() - began
    return Round(count / seconds, statistics.median(took), (cpu_ms(pids) - cpu) / count)


async def in_turns(
    servers: dict[str, tuple[int, Callable[[], PolicyLine]]], settings: Settings
) -> dict[tuple[str, int], list[Round]]:
    """The rounds of each server at each width, in turns."""
    clients = {
        name: PolicyClient([name], lambda _, connect=connect: connect(), timeout_s=60, attempts=1)
        for name, (_, connect) in servers.items()
    }
    found = defaultdict[tuple[str, int], list[Round]](list)
    try:
        for number in range(settings.rounds + 1):
            for at_once in settings.at_once:
                for name, client in clients.items():
                    seed = 1000 * number + at_once
                    took = await one_round(
                        client, servers[name][0], seed, at_once, settings.requests
                    )
                    if number:  # the first is to warm up
                        found[name, at_once].append(took)
    finally:
        for client in clients.values():
            await client.close()
    return found


def measure(settings: Settings) -> Report:
    config, _ = choose(load_config(PRESET))
    with (
        tempfile.TemporaryDirectory() as scratch,
        host_of(config, Path(scratch)) as ours,
        http_of(config, Path(scratch)) as theirs,
    ):
        found = uvloop.run(in_turns({HOST: ours, HTTP: theirs}, settings))
    middle = {
        key: Round(*(statistics.median(column) for column in zip(*map(_row, rounds), strict=True)))
        for key, rounds in found.items()
    }
    return make_report(
        "policy_host",
        settings=asdict(settings),
        figures={
            f"{name}_{at_once}_{figure}": value
            for (name, at_once), took in middle.items()
            for figure, value in asdict(took).items()
        },
        ratios={
            f"cpu_at_{at_once}_vs_http": ratio(
                middle[HOST, at_once].cpu_ms_per_request, middle[HTTP, at_once].cpu_ms_per_request
            )
            for at_once in settings.at_once
        },
    )


def _row(took: Round) -> tuple[float, float, float]:
    return took.requests_per_s, took.median_ms, took.cpu_ms_per_request


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    settings = Settings(rounds=1, requests=64) if given.quick else Settings()
    report = measure(settings)
    report.give(Console(), given.json)


if __name__ == "__main__":
    main()
