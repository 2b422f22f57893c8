"""From a configuration to who runs where: as tables, with nothing started."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from common.config import Actors, Config, Learner, PolicyServer, Run, Transport
from common.places import EVALUATION, LEARNER, Address, Member, RunPlan, ServerPlace
from launch.plan.topology import (
    RunFiles,
    evaluation,
    members,
    plan_run,
    rank_environment,
    rank_processes,
)

FILES = RunFiles(config=Path("/run/config.json"), private=Path("/private"))


def plan(config: Config, *, resume: bool = False) -> RunPlan:
    return plan_run(config, FILES, {name: f"key of {name}" for name in members(config)},
                    resume=resume)  # fmt: skip


def of(*, servers: int, actors: int) -> Config:
    return Config(policy_server=PolicyServer(count=servers), actors=Actors(processes=actors))


def value_after(command: tuple[str, ...], option: str) -> str:
    return command[command.index(option) + 1]


@pytest.mark.parametrize(("servers", "actors"), [(1, 1), (2, 3)])
def test_every_process_of_a_run_is_planned_in_the_order_of_its_start(
    servers: int, actors: int
) -> None:
    planned = plan(of(servers=servers, actors=actors))

    assert [(process.name, process.role) for process in planned.processes] == [
        *((f"policy-server-s{number}", "policy-server") for number in range(servers)),
        ("learner", "learner"),
        *((f"actor-a{number}", "actor") for number in range(actors)),
    ]
    for process in planned.processes:
        assert process.command[0] == sys.executable
        assert value_after(process.command, "--config") == "/run/config.json"
        assert value_after(process.command, "--plan") == "/private/plan.json" == str(FILES.plan)


@pytest.mark.parametrize(("servers", "actors"), [(1, 1), (2, 3)])
def test_whoever_speaks_is_a_member_with_a_key_of_its_own(servers: int, actors: int) -> None:
    assert plan(of(servers=servers, actors=actors)).members == (
        Member(name="learner", role="learner", key="key of learner"),
        Member(name="join", role="newcomer", key="key of join"),
        *(
            Member(name=f"s{number}", role="policy-server", key=f"key of s{number}")
            for number in range(servers)
        ),
        *(
            Member(name=f"a{number}", role="actor", key=f"key of a{number}")
            for number in range(actors)
        ),
        Member(name=EVALUATION, role="evaluation", key=f"key of {EVALUATION}"),
    )


def test_who_is_started_under_a_name_has_the_keys_of_that_member() -> None:
    planned = plan(of(servers=3, actors=2))
    known = {member.name: member.role for member in planned.members}

    named = [process for process in planned.processes if process.role != "learner"]
    assert [known[value_after(process.command, "--name")] for process in named] == [
        process.role for process in named
    ]
    assert known[LEARNER] == "learner"
    assert [place.name for place in planned.servers] == [
        name for name, role in known.items() if role == "policy-server"
    ]


def test_a_member_without_a_key_is_no_plan() -> None:
    with pytest.raises(KeyError, match="a0"):
        plan_run(Config(), FILES, {"learner": "k", "join": "k", "s0": "k"})


@pytest.mark.parametrize(
    ("listen", "coordinator", "weights"),
    [
        ("", Address(bind="/private/coordinator"), Address(bind="/private/weights")),
        ("127.0.0.1:0", Address(bind="127.0.0.1", host="127.0.0.1"),
         Address(bind="127.0.0.1", host="127.0.0.1")),
        ("10.0.0.7:5555", Address(bind="10.0.0.7", host="10.0.0.7", port=5555),
         Address(bind="10.0.0.7", host="10.0.0.7")),
    ],
)  # fmt: skip
def test_doors_are_in_the_private_folder_unless_an_address_is_given(
    listen: str, coordinator: Address, weights: Address
) -> None:
    """Two doors cannot share a port: the second takes any free one."""
    planned = plan(Config(transport=Transport(listen=listen)))

    assert planned.coordinator == replace(coordinator, key="key of learner")
    assert planned.weights == replace(weights, key="key of learner")


@pytest.mark.parametrize("listen", ["", "10.0.0.7:5555"])
def test_policy_servers_are_in_the_private_folder_whatever_is_configured(listen: str) -> None:
    config = Config(
        policy_server=PolicyServer(count=2, tensor_parallel=4), transport=Transport(listen=listen)
    )

    assert plan(config).servers == (
        ServerPlace(name="s0", address=Address(bind="/private/s0", key="key of s0"), first_gpu=0),
        ServerPlace(name="s1", address=Address(bind="/private/s1", key="key of s1"), first_gpu=4),
    )


@pytest.mark.parametrize("resume", [True, False])
def test_only_the_learner_goes_on_from_a_checkpoint(resume: bool) -> None:
    planned = plan(Config(), resume=resume)

    assert ["--resume" in process.command for process in planned.processes] == [
        False,
        resume,
        False,
    ]


@pytest.mark.parametrize(
    ("listen", "wandb", "server", "learner"),
    [
        ("", "disabled", True, True),
        ("", "offline", True, True),
        ("", "online", True, False),
        ("10.0.0.7:5555", "disabled", False, False),
    ],
)
def test_who_needs_no_network_but_its_own_gets_no_other(
    listen: str, wandb: Literal["disabled", "offline", "online"], server: bool, learner: bool
) -> None:
    """Tools of actors do."""
    planned = plan(Config(run=Run(wandb=wandb), transport=Transport(listen=listen)))

    assert [process.own_network for process in planned.processes] == [server, learner, False]


def test_the_learner_has_its_ranks_and_every_process_its_threads() -> None:
    config = Config(
        learner=Learner(ranks=4, threads=3),
        policy_server=PolicyServer(threads=2),
        actors=Actors(processes=1),
    )

    server, learner, actor = plan(config).processes

    assert "--nproc-per-node=4" in learner.command
    assert [dict(process.environment)["OMP_NUM_THREADS"] for process in (server, learner, actor)] \
        == ["2", "3", "1"]  # fmt: skip
    assert dict(learner.environment)["GLOO_SOCKET_IFNAME"] == "lo"
    for process in (server, learner, actor):
        assert dict(process.environment)["HF_HUB_OFFLINE"] == "1", "nothing is fetched"


def test_several_ranks_meet_through_files_and_one_needs_nobody(tmp_path: Path) -> None:
    module = ("learner.sft.main", "--config", "file")
    several = rank_processes(*module, ranks=2, private=tmp_path)
    alone = rank_processes(*module, ranks=1, private=tmp_path)
    environment = dict(rank_environment(1, private=tmp_path))

    assert {"--rdzv-conf=store_type=file", f"--rdzv-endpoint={tmp_path}/torchrun"} <= set(several)
    assert {"--nproc-per-node=2", "--local-addr=127.0.0.1"} <= set(several)
    assert several[-4:] == ("-m", *module)
    assert alone[-4:] == ("-m", *module)
    assert not any("torch" in word for word in alone)
    assert environment["LZERO_RENDEZVOUS"] == f"file://{tmp_path}/ranks"
    assert environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] == "1"


def test_what_torch_and_vllm_compile_and_load_again_is_where_nobody_else_puts_anything() -> None:
    processes = plan(Config()).processes
    server, learner = (p for p in processes if p.role != "actor")

    for environment in (server.environment, learner.environment):
        private = dict(environment)
        assert private["TMPDIR"] == str(FILES.private)
        assert private["TORCHINDUCTOR_CACHE_DIR"] == str(FILES.private / "compiled")


def test_an_evaluation_is_pointed_at_suites_and_weights_and_where_its_scores_go() -> None:
    process = evaluation(
        "evaluate-before", FILES, suites=Path("/suites"), version=3, out=Path("/out")
    )

    assert process.name == "evaluate-before"
    options = ("--suites", "--version", "--out", "--plan")
    given = [value_after(process.command, name) for name in options]
    assert given == ["/suites", "3", "/out", "/private/plan.json"]
