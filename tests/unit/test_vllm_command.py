import json
from pathlib import Path

import pytest

from actors.inference.plugin import KEYS_VARIABLE
from actors.inference.server import vllm_command, vllm_environment
from common.config import Config, Model, PolicyServer, Run


def value_after(command: list[str], option: str) -> str:
    return command[command.index(option) + 1]


def make_config() -> Config:
    return Config(
        run=Run(seed=7),
        model=Model(path="/models/tiny", dtype="bfloat16", max_context=256),
        policy_server=PolicyServer(
            max_sequences=48, threads=3, memory_gib=0.5, tensor_parallel=2, gpu_memory_fraction=0.6
        ),
    )


@pytest.mark.parametrize("cpu", [True, False])
def test_command_serves_the_model_on_a_unix_socket_with_true_logprobs(cpu: bool) -> None:
    command = vllm_command(make_config(), "/private/s0.http", cpu=cpu, python="/usr/bin/python")

    assert command[0] == "/usr/bin/python"
    assert value_after(command, "--model") == "/models/tiny"
    assert value_after(command, "--uds") == "/private/s0.http"
    assert not {"--host", "--port"} & set(command)
    assert value_after(command, "--dtype") == "bfloat16"
    assert value_after(command, "--seed") == "7"
    assert value_after(command, "--max-model-len") == "256"
    assert value_after(command, "--max-num-seqs") == "48"
    assert value_after(command, "--logprobs-mode") == "processed_logprobs"
    assert value_after(command, "--generation-config") == "vllm"
    assert json.loads(value_after(command, "--weight-transfer-config")) == {"backend": "lzero-zmq"}
    assert "--enable-scale-out" in command


def test_a_context_that_the_scaling_of_positions_allows_is_told_to_vllm() -> None:
    within = vllm_command(make_config(), "/s", cpu=True, longest=256)
    beyond = vllm_command(make_config(), "/s", cpu=True, longest=128)

    assert "--hf-overrides" not in within
    overrides = json.loads(value_after(beyond, "--hf-overrides"))
    assert overrides == {"max_position_embeddings": 256}


def test_the_command_line_names_the_module_and_the_folder_of_the_run() -> None:
    named = vllm_command(make_config(), "/s", cpu=True, run=Path("/runs/a"))
    unnamed = vllm_command(make_config(), "/s", cpu=True)

    assert value_after(named, "-X") == "actors.inference.server=/runs/a"
    assert named.index("-X") < named.index("-m")
    assert "-X" not in unnamed


def test_cpu_and_gpu_take_their_own_limits_only() -> None:
    cpu = vllm_command(make_config(), "/s", cpu=True)
    gpu = vllm_command(make_config(), "/s", cpu=False)

    assert value_after(cpu, "--kv-cache-memory-bytes") == str(2**29)
    assert "--tensor-parallel-size" not in cpu
    assert value_after(gpu, "--tensor-parallel-size") == "2"
    assert value_after(gpu, "--gpu-memory-utilization") == "0.6"
    assert "--enforce-eager" not in gpu


def environment(*, cpu: bool) -> dict[str, str]:
    private = Path("/private")
    return vllm_environment(
        make_config(), cpu=cpu, private=private, keys=private / "s0.key",
        inherited={"PATH": "/bin", "TMPDIR": "/open"},
    )  # fmt: skip


def test_environment_keeps_what_is_inherited_and_bounds_the_threads_on_cpu_only() -> None:
    cpu, gpu = environment(cpu=True), environment(cpu=False)

    assert cpu["PATH"] == gpu["PATH"] == "/bin"
    assert cpu["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in gpu
    assert cpu["VLLM_SERVER_DEV_MODE"] == gpu["VLLM_SERVER_DEV_MODE"] == "1"
    assert cpu["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("visible", "first", "seen"),
    [(None, 0, "0,1"), (None, 4, "4,5"), ("7,GPU-ab,3", 1, "GPU-ab,3"), ("7, 3", 2, "")],
)
def test_a_server_sees_its_own_gpus_of_those_that_the_run_sees(
    visible: str | None, first: int, seen: str
) -> None:
    found = vllm_environment(
        make_config(), cpu=False, private=Path("/p"), keys=Path("/p/s1.key"), first_gpu=first,
        inherited={} if visible is None else {"CUDA_VISIBLE_DEVICES": visible},
    )  # fmt: skip

    assert found["CUDA_VISIBLE_DEVICES"] == seen
    assert "CUDA_VISIBLE_DEVICES" not in environment(cpu=True)


@pytest.mark.parametrize("cpu", [True, False])
def test_what_vllm_opens_for_itself_is_in_the_private_folder_with_its_keys(cpu: bool) -> None:
    found = environment(cpu=cpu)

    assert found["VLLM_RPC_BASE_PATH"] == "/private"
    assert found[KEYS_VARIABLE] == "/private/s0.key"
