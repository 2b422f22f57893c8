"""A real policy server (vLLM) as a run would start it, and where its workers fetch weights."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from actors.hosted import HostLine
from actors.inference.vllm_options import vllm_command, vllm_environment
from actors.policy import PolicyClient
from common.config import Config
from common.config_file import save_config
from common.places import LEARNER, RunPlan, ServerPlace
from common.plan_file import own_keys
from common.wire.sockets import Door, Wire
from launch.plan.topology import RunFiles
from launch.starters.ends import last_lines
from launch.starters.private import make_plan, private_folder
from launch.starters.specs import policy_servers
from learner.weights.channel import WORKER_LIMITS
from tests.process_tree import descendants
from tests.waiting import wait_for

CHAT_TEMPLATE = Path("launch/presets/chat_template.jinja")
"""With it a chat is token for token the context of a training run."""


@dataclasses.dataclass(frozen=True)
class Served:
    plan: RunPlan
    pid: int
    """Of the host, which leads a process group."""

    @property
    def place(self) -> ServerPlace:
        return self.plan.servers[0]

    @contextmanager
    def learner(self) -> Iterator[tuple[Wire, Door]]:
        """The learner's sockets, and where the server's host fetches weights."""
        known = {m.key: m.name for m in self.plan.members if m.role == "policy-server"}
        with Wire(own_keys(self.plan, LEARNER)) as wire:
            yield wire, wire.listen("weights", self.plan.weights, known, WORKER_LIMITS)

    @asynccontextmanager
    async def client(self, *, timeout_s: float, attempts: int) -> AsyncIterator[PolicyClient]:
        """A client as those of actors."""
        with Wire(own_keys(self.plan, "a0")) as wire:
            async with PolicyClient(
                [self.place.name],
                lambda _: HostLine(wire, self.place.address, who="a0"),
                timeout_s=timeout_s,
                attempts=attempts,
            ) as client:
                yield client


@contextmanager
def policy_server(config: Config, folder: Path) -> Iterator[Served]:
    """The policy server of a run with that configuration, once it answers."""
    save_config(config, folder / "config.json")
    with private_folder(folder) as private:
        plan = make_plan(config, RunFiles(config=folder / "config.json", private=private))
        process = start_server(plan, config, folder)
        try:
            yield Served(plan, process.pid)
        finally:
            end(process)


def start_server(plan: RunPlan, config: Config, folder: Path) -> "subprocess.Popen[bytes]":
    """The first policy server of the plan, once it samples."""
    spec = policy_servers(plan, config, folder)[0]
    assert spec.is_ready is not None
    with spec.log.open("a") as output:
        process = subprocess.Popen(
            spec.command, env={**os.environ, **spec.env}, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(spec.is_ready, process, spec.log)
    except BaseException:
        end(process)
        raise
    return process


@contextmanager
def chat_server_of(config: Config, folder: Path) -> Iterator[str]:
    """The address of a vLLM server as anybody would start it, for chats with ``model.path``."""
    log, port = folder / "server.log", _free_port()
    listen = ["--host", "127.0.0.1", "--port", str(port), "--chat-template", str(CHAT_TEMPLATE)]
    command = vllm_command(config, listen, cpu=True)
    environment = vllm_environment(config, cpu=True, private=folder, inherited=os.environ)
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: is_healthy(url), process, log)
        yield f"{url}/v1"
    finally:
        end(process)


def engine_of(host: int) -> int | None:
    """The process in which a host's vLLM computes; None while there is none."""
    for pid in descendants(host):
        with contextlib.suppress(OSError):
            if b"EngineCore" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(is_ready: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    wait_for(lambda: is_ready() or process.poll() is not None, timeout_s=240)
    assert process.poll() is None, last_lines(log)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End a process group."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
