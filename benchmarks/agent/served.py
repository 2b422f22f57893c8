"""Serves a model folder with vLLM for as long as it is measured."""

import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from actors.inference.vllm_options import is_cpu_build, vllm_command, vllm_environment
from common.config import Config, Learner, Model
from common.errors import MachineError
from common.places import LOOPBACK

_START_S = 900.0
_PAUSE_S = 0.5


@contextmanager
def served(folder: Path, *, max_context: int, sequences: int, threads: int) -> Iterator[str]:
    """The URL of a server of ``folder``, in bfloat16, without its ``/v1``.

    Raises:
        MachineError: it ended, or was not ready in time; quotes its last words.
    """
    config = Config(
        model=Model(path=str(folder), dtype="bfloat16", max_context=max_context),
        learner=Learner(pack_tokens=max_context),
    )
    server = replace(config.policy_server, max_sequences=sequences, threads=threads, memory_gib=2.0)
    config = replace(config, policy_server=server)
    cpu, port = is_cpu_build(), _free_port()
    command = vllm_command(config, ["--host", LOOPBACK, "--port", str(port)], cpu=cpu)
    with tempfile.TemporaryDirectory() as scratch:
        private = Path(scratch)
        environment = vllm_environment(config, cpu=cpu, private=private, inherited=os.environ)
        log = private / "log"
        with log.open("w") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            url = f"http://{LOOPBACK}:{port}"
            _wait(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(url):
            return
        time.sleep(_PAUSE_S)
    raise MachineError(f"vLLM did not start; it said: {log.read_text()[-2000:]}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
