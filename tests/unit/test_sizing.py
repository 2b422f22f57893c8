"""What a run needs of its machine is known before it starts, and what cannot fit is refused."""

import dataclasses
from typing import Any

import pytest

from common.config import Config, Learner, Model, PolicyServer
from common.errors import MachineError
from launch.sizing.fit import Machine, check_room, gpus_needed, shares_gpu
from launch.sizing.machine import gpus_in
from launch.sizing.recipes import description_of
from launch.sizing.server import server_memory
from launch.sizing.step_time import H100, Workload, step_time
from learner.engine.memory import GIB, FreeMemory, check_memory, estimate_memory
from learner.engine.model_shape import shape_of

MODEL = "models/Qwen2.5-7B-Instruct"
EIGHT = Machine(gpus=(80 * GIB,) * 8, host=1000 * GIB)


def config_of(*, server: dict[str, Any], learner: dict[str, Any], context: int = 8192) -> Config:
    return Config(
        model=Model(path=MODEL, dtype="bfloat16", max_context=context),
        policy_server=PolicyServer(**server),
        learner=Learner(pack_tokens=context, activation_checkpointing="full", **learner),
    )


APART = config_of(
    server={"tensor_parallel": 4, "gpu_memory_fraction": 0.9}, learner={"ranks": 4, "first_gpu": 4}
)
SHAPE = description_of(APART)


def test_a_server_on_a_gpu_has_a_part_of_it_for_weights_and_the_rest_for_contexts() -> None:
    server = server_memory(SHAPE, APART, gpu=80 * GIB)

    assert server.weights == 2 * 7_615_616_512 // 4
    # 28 layers, keys and values of 4 heads of 128 numbers, one head on each GPU.
    assert server.per_context == 8192 * 2 * 2 * 28 * 128
    assert server.weights + server.working + server.cache == int(0.9 * 80 * GIB)
    assert server.contexts == server.cache // server.per_context > 100


def test_heads_of_keys_are_not_cut_in_two() -> None:
    wide = dataclasses.replace(APART, policy_server=PolicyServer(tensor_parallel=8))

    by_8, by_4 = (server_memory(SHAPE, each, gpu=80 * GIB) for each in (wide, APART))

    assert by_8.per_context == by_4.per_context
    assert by_8.weights * 2 == pytest.approx(by_4.weights, abs=2)


def test_on_a_cpu_the_cache_is_what_the_key_says() -> None:
    config = dataclasses.replace(APART, policy_server=PolicyServer(memory_gib=3.0))

    server = server_memory(SHAPE, config, gpu=None)

    assert server.cache == 3 * GIB
    assert server.weights == 2 * 7_615_616_512


def test_a_run_that_fits_is_not_warned() -> None:
    assert check_room(SHAPE, APART, EIGHT) == []


def test_too_few_gpus_are_refused_with_the_keys_that_count_them() -> None:
    assert gpus_needed(APART) == 8

    with pytest.raises(
        MachineError, match=r"needs 8 GPUs, but this machine has 4: .*first_gpu = 4"
    ):
        check_room(SHAPE, APART, Machine(gpus=(80 * GIB,) * 4, host=1000 * GIB))


def test_each_of_several_servers_has_gpus_of_its_own() -> None:
    several = dataclasses.replace(
        APART, policy_server=dataclasses.replace(APART.policy_server, count=3)
    )

    assert gpus_needed(several) == 12
    assert shares_gpu(several)
    assert not shares_gpu(APART)
    with pytest.raises(MachineError, match=r"needs 12 GPUs, .*policy_server.count = 3"):
        check_room(SHAPE, several, EIGHT)


def test_on_a_cpu_every_server_takes_its_memory_of_the_machine() -> None:
    def config(count: int) -> Config:
        server = PolicyServer(memory_gib=4.0, count=count)
        return dataclasses.replace(APART, policy_server=server, learner=Learner(pack_tokens=8192))

    for count in (1, 2):
        server = server_memory(SHAPE, config(count), gpu=None)
        taken = count * (server.weights + server.working + server.cache)
        with pytest.raises(MachineError, match=r"the policy server needs|count = 2 policy servers"):
            check_room(SHAPE, config(count), Machine(gpus=(), host=int(taken / 1.5)))
        with pytest.raises(
            MachineError, match=r"but 15.50 GiB are free beside the policy servers?:"
        ):
            check_room(SHAPE, config(count), Machine(gpus=(), host=taken + 16 * GIB))
    assert check_room(SHAPE, config(2), Machine(gpus=(), host=1000 * GIB)) == []


def test_several_servers_sample_a_part_of_a_step_each() -> None:
    one = config_of(server={"max_sequences": 8}, learner={"groups": 4, "group_size": 2})
    two = dataclasses.replace(one, policy_server=PolicyServer(max_sequences=8, count=2))
    work = Workload(tokens=512, sampled=500)

    assert step_time(SHAPE, two, H100, work).server == pytest.approx(
        step_time(SHAPE, one, H100, work).server / 2
    )


def test_a_learner_beside_a_server_on_one_gpu_has_what_the_server_leaves() -> None:
    alone = config_of(server={"gpu_memory_fraction": 0.5}, learner={"ranks": 8, "first_gpu": 0})
    (gpu,) = {sum(estimate_memory(SHAPE, alone, on_gpu=True).device.values())}
    roomy, tight, small = (
        Machine(gpus=(int(2 * share * gpu),) * 8, host=1000 * GIB) for share in (1.3, 0.9, 0.7)
    )

    assert check_room(SHAPE, alone, roomy) == []
    (warning,) = check_room(SHAPE, alone, tight)
    assert "beside the policy server" in warning
    with pytest.raises(MachineError, match=r"a learner rank needs about .* too little; what helps"):
        check_room(SHAPE, alone, small)


def test_a_server_whose_weights_do_not_fit_is_refused_with_what_helps() -> None:
    config = config_of(
        server={"tensor_parallel": 1, "gpu_memory_fraction": 0.15},
        learner={"ranks": 7, "first_gpu": 1},
    )

    with pytest.raises(MachineError) as caught:
        check_room(SHAPE, config, EIGHT)

    assert "gpu_memory_fraction = 0.15 of each GPU is 12.00 GiB" in str(caught.value)
    assert "weights 14.19" in str(caught.value)
    assert "policy_server.tensor_parallel" in str(caught.value)


def test_on_a_cpu_server_and_learner_share_the_memory_of_the_machine() -> None:
    config = dataclasses.replace(
        APART, policy_server=PolicyServer(memory_gib=4.0), learner=Learner(pack_tokens=8192)
    )

    assert check_room(SHAPE, config, Machine(gpus=(), host=1000 * GIB)) == []
    with pytest.raises(MachineError, match=r"of CPU memory .* free beside the policy server"):
        check_room(SHAPE, config, Machine(gpus=(), host=64 * GIB))
    with pytest.raises(MachineError, match=r"the policy server needs .*policy_server.memory_gib"):
        check_room(SHAPE, config, Machine(gpus=(), host=8 * GIB))


@pytest.mark.parametrize(("share", "said"), [(1.2, ""), (1.1, "to spare"), (0.8, "too little")])
def test_what_is_close_is_tried_with_a_warning(share: float, said: str) -> None:
    needed = sum(estimate_memory(SHAPE, APART, on_gpu=True).device.values())

    warning = check_memory(SHAPE, APART, FreeMemory(device=int(share * needed), host=1000 * GIB))

    assert bool(warning) == bool(said)
    assert said in warning
    with pytest.raises(MachineError):
        check_memory(SHAPE, APART, FreeMemory(device=int(0.75 * needed), host=1000 * GIB))


LISTING = "0, GPU-aa11, 81559\n1, GPU-ab22, 40960\n2, GPU-cc33, 81559\n"


@pytest.mark.parametrize(
    ("visible", "mib"),
    [
        (None, [81559, 40960, 81559]),
        ("2,1", [81559, 40960]),
        ("GPU-ab", [40960]),
        ("GPU-a", []),
        ("0,-1,2", [81559]),
        ("", []),
    ],
)
def test_gpus_are_those_that_torch_will_see(visible: str | None, mib: list[int]) -> None:
    assert gpus_in(LISTING, visible) == tuple(each << 20 for each in mib)


def test_what_is_no_listing_holds_no_gpus() -> None:
    assert gpus_in("No devices were found\n", None) == ()


def test_a_learner_takes_operations_over_what_is_reached_of_the_peak() -> None:
    """Six operations a weight and token are the rule of thumb; attention comes on top."""
    config = config_of(server={}, learner={"groups": 4, "group_size": 2}, context=2048)
    config = dataclasses.replace(
        config, learner=dataclasses.replace(config.learner, activation_checkpointing="none")
    )
    work = Workload(tokens=1000, sampled=1000, flops_share=0.5)
    weights = shape_of(SHAPE).parameters - 152064 * 3584

    time = step_time(SHAPE, config, H100, work)

    thumb = 8 * 1000 * 6 * weights / (0.5 * 989e12)
    assert time.learner == pytest.approx(thumb, rel=0.02)
    assert time.shared
    assert time.total == time.learner + time.server


def test_a_server_reads_its_weights_for_every_token_of_as_many_sequences_as_it_runs() -> None:
    config = config_of(
        server={"max_sequences": 8}, learner={"groups": 4, "group_size": 2, "first_gpu": 1}
    )
    work = Workload(tokens=512, sampled=500, bandwidth_share=0.5)

    time = step_time(SHAPE, config, H100, work)

    weights = 500 * 2 * 7_615_616_512 / (0.5 * 3.35e12)
    assert weights < time.server < 1.1 * weights
    assert time.total == max(time.learner, time.server)


def test_offloaded_state_costs_time() -> None:
    offloaded = dataclasses.replace(
        APART, learner=dataclasses.replace(APART.learner, cpu_offload=True)
    )

    here, there = (step_time(SHAPE, each, H100, Workload()) for each in (APART, offloaded))

    assert there.learner > here.learner + 28 * 7.6e9 / H100.host_bandwidth
    assert there.server == here.server
