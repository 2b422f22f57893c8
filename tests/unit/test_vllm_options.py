from pathlib import Path

import pytest

from actors.inference.vllm_options import engine_options, vllm_command, vllm_environment
from common.config import Config, Model, PolicyServer, Run

LISTEN = ["--host", "127.0.0.1", "--port", "8000"]


def make_config() -> Config:
    return Config(
        run=Run(seed=7),
        model=Model(path="/models/tiny", dtype="bfloat16", max_context=256),
        policy_server=PolicyServer(
            max_sequences=48, threads=3, memory_gib=0.5, tensor_parallel=2, gpu_memory_fraction=0.6
        ),
    )


@pytest.mark.parametrize("cpu", [True, False])
def test_the_engine_serves_the_model_with_true_logprobs(cpu: bool) -> None:
    options = engine_options(make_config(), cpu=cpu)

    assert options["model"] == "/models/tiny"
    assert options["dtype"] == "bfloat16"
    assert options["seed"] == 7
    assert options["max_model_len"] == 256
    assert options["max_num_seqs"] == 48
    assert options["logprobs_mode"] == "processed_logprobs"
    assert options["generation_config"] == "vllm"
    assert options["weight_transfer_config"] == {"backend": "lzero-mapped"}
    assert options["enable_prefix_caching"] is True


def test_a_context_that_the_scaling_of_positions_allows_is_told_to_vllm() -> None:
    within = engine_options(make_config(), cpu=True, longest=256)
    beyond = engine_options(make_config(), cpu=True, longest=128)

    assert "hf_overrides" not in within
    assert beyond["hf_overrides"] == {"max_position_embeddings": 256}


def test_cpu_and_gpu_take_their_own_limits_only() -> None:
    cpu = engine_options(make_config(), cpu=True)
    gpu = engine_options(make_config(), cpu=False)

    assert cpu["kv_cache_memory_bytes"] == 2**29
    assert "tensor_parallel_size" not in cpu
    assert gpu["tensor_parallel_size"] == 2
    assert gpu["gpu_memory_utilization"] == 0.6
    assert "enforce_eager" not in gpu


def test_the_command_has_the_same_engine_behind_http() -> None:
    command = vllm_command(make_config(), LISTEN, cpu=True)

    assert command[-len(LISTEN) :] != LISTEN, "the options of the engine follow"
    assert command[command.index("--host") :][:4] == LISTEN
    assert command[command.index("--max-num-seqs") + 1] == "48"
    assert command[command.index("--weight-transfer-config") + 1] == '{"backend": "lzero-mapped"}'
    assert {"--enforce-eager", "--enable-scale-out", "--disable-log-stats"} <= set(command)


def environment(*, cpu: bool) -> dict[str, str]:
    private = Path("/private")
    return vllm_environment(
        make_config(), cpu=cpu, private=private,
        inherited={"PATH": "/bin", "TMPDIR": "/open"},
    )  # fmt: skip


def test_environment_keeps_what_is_inherited_and_bounds_the_threads_on_cpu_only() -> None:
    cpu, gpu = environment(cpu=True), environment(cpu=False)

    assert cpu["PATH"] == gpu["PATH"] == "/bin"
    assert cpu["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in gpu
    assert cpu["VLLM_WORKER_MULTIPROCESSING_METHOD"] == "spawn"
    assert cpu["VLLM_NO_USAGE_STATS"] == "1"


@pytest.mark.parametrize(
    ("visible", "first", "seen"),
    [(None, 0, "0,1"), (None, 4, "4,5"), ("7,GPU-ab,3", 1, "GPU-ab,3"), ("7, 3", 2, "")],
)
def test_a_server_sees_its_own_gpus_of_those_that_the_run_sees(
    visible: str | None, first: int, seen: str
) -> None:
    found = vllm_environment(
        make_config(), cpu=False, private=Path("/p"), first_gpu=first,
        inherited={} if visible is None else {"CUDA_VISIBLE_DEVICES": visible},
    )  # fmt: skip

    assert found["CUDA_VISIBLE_DEVICES"] == seen
    assert "CUDA_VISIBLE_DEVICES" not in environment(cpu=True)


@pytest.mark.parametrize("cpu", [True, False])
def test_what_vllm_opens_for_itself_is_in_the_private_folder(cpu: bool) -> None:
    found = environment(cpu=cpu)

    assert found["VLLM_RPC_BASE_PATH"] == "/private"
