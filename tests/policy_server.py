"""A real policy server (vLLM) as a run would start it, and where its workers fetch weights."""

import dataclasses
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.inference.server import vllm_command, vllm_environment
from common.config import Config
from common.config_file import save_config
from common.places import LEARNER, RunPlan, ServerPlace
from common.plan_file import own_keys
from common.wire.server_http import server_url
from common.wire.sockets import Door, Wire
from launch.plan.topology import RunFiles
from launch.starters.ends import last_lines
from launch.starters.private import make_plan, private_folder
from launch.starters.specs import answers, policy_servers
from learner.weights.channel import WORKER_LIMITS
from tests.waiting import wait_for

CHAT_TEMPLATE = Path("launch/presets/chat_template.jinja")
"""With it a chat is token for token the context of a training run."""


@dataclasses.dataclass(frozen=True)
class Served:
    plan: RunPlan
    pid: int
    """Of vLLM's server, which leads a process group."""

    @property
    def place(self) -> ServerPlace:
        return self.plan.servers[0]

    @property
    def url(self) -> str:
        return server_url(self.place.address)

    @contextmanager
    def door(self) -> Iterator[Door]:
        """Where the server's workers fetch weights; whoever uses it closes it."""
        known = {m.key: m.name for m in self.plan.members if m.role == "policy-server"}
        with Wire(own_keys(self.plan, LEARNER)) as wire:
            yield wire.listen("weights", self.plan.weights, known, WORKER_LIMITS)


@contextmanager
def policy_server(config: Config, folder: Path) -> Iterator[Served]:
    """The policy server of a run with that configuration, once it answers."""
    save_config(config, folder / "config.json")
    with private_folder(folder) as private:
        plan = make_plan(config, RunFiles(config=folder / "config.json", private=private))
        (spec,) = policy_servers(plan, config, folder)
        assert spec.is_ready is not None
        with spec.log.open("w") as output:
            process = subprocess.Popen(
                spec.command, env={**os.environ, **spec.env}, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(spec.is_ready, process, spec.log)
            yield Served(plan, process.pid)
        finally:
            end(process)


@contextmanager
def chat_server_of(config: Config, folder: Path) -> Iterator[str]:
    """The address of a vLLM server as anybody would start it, for chats with ``model.path``."""
    log, port = folder / "server.log", _free_port()
    command = [*vllm_command(config, "", cpu=True), "--chat-template", str(CHAT_TEMPLATE)]
    at = command.index("--uds")
    command[at : at + 2] = ["--host", "127.0.0.1", "--port", str(port)]
    environment = vllm_environment(
        config, cpu=True, private=folder, keys=folder / "none", inherited=os.environ
    )
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url, "/health"), process, log)
        yield f"{url}/v1"
    finally:
        end(process)


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
