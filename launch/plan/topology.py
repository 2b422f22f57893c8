"""Which processes a run has, where they listen and whom they know: from its configuration. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.child_process import module_command
from common.config import Config
from common.places import (
    COMPILED,
    COMPILED_HEADERS,
    EVALUATION,
    JOIN,
    LEARNER,
    LOOPBACK,
    LOOPBACK_INTERFACE,
    RENDEZVOUS,
    Address,
    Member,
    ProcessPlan,
    Role,
    RunPlan,
    ServerPlace,
)
from common.plan_file import PLAN

SERVER, ACTOR = "policy-server-", "actor-"
"""Before a member's name in that of its process."""

_QUIET = (
    ("PYTHONUNBUFFERED", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
    ("HF_HUB_OFFLINE", "1"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("OMP_WAIT_POLICY", "PASSIVE"),
)
_TORCHRUN_FILE, _RANKS_FILE = "torchrun", "ranks"
MEETING_FILES = (f"{_TORCHRUN_FILE}*", f"{_RANKS_FILE}*")
"""Patterns of the files in the private folder through which ranks meet, for one life of theirs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """What the processes of a run are pointed at: its configuration, and its private folder."""

    config: Path
    private: Path

    @property
    def plan(self) -> Path:
        """The file of the plan."""
        return self.private / PLAN


def members(config: Config) -> dict[str, Role]:
    """Everybody who proves with a key who they are; each needs one before the plan is made."""
    return {
        LEARNER: "learner",
        JOIN: "newcomer",
        **dict.fromkeys(_server_names(config), "policy-server"),
        **dict.fromkeys(_actor_names(config), "actor"),
        EVALUATION: "evaluation",
    }


def plan_run(
    config: Config, files: RunFiles, keys: Mapping[str, str], *, resume: bool = False
) -> RunPlan:
    """The plan of a run on this machine.

    Args:
        config: resolved.
        files: of the run.
        keys: the public key of each of ``members``.
        resume: whether the learner goes on from its last checkpoint.
    """
    learner_key = keys[LEARNER]
    return RunPlan(
        private=str(files.private),
        coordinator=_listening(config, files.private / "coordinator", learner_key),
        weights=_listening(config, files.private / "weights", learner_key, any_port=True),
        servers=tuple(
            ServerPlace(
                name=name,
                address=Address(bind=str(files.private / name), key=keys[name]),
                first_gpu=number * config.policy_server.tensor_parallel,
            )
            for number, name in enumerate(_server_names(config))
        ),
        members=tuple(
            Member(name=name, role=role, key=keys[name]) for name, role in members(config).items()
        ),
        processes=(
            *(_policy_server(config, files, name) for name in _server_names(config)),
            _learner(config, files, resume=resume),
            *(_actor(files, name) for name in _actor_names(config)),
        ),
    )


def evaluation(name: str, files: RunFiles, *, suites: Path, version: int, out: Path) -> ProcessPlan:
    """One evaluation against the policy servers that sample with ``version``."""
    options = ("--suites", str(suites), "--version", str(version), "--out", str(out))
    return ProcessPlan(
        name=name,
        role="actor",
        command=_command("actors.evaluate", files, *options),
        environment=_with_threads(1),
    )


def joined_process(config: Config, files: RunFiles, name: str, role: Role) -> ProcessPlan:
    """The process of somebody who joins as an actor or a policy server."""
    return _actor(files, name) if role == "actor" else _policy_server(config, files, name)


def rank_processes(*module: str, ranks: int, private: Path) -> tuple[str, ...]:
    """The command for processes on this machine that train together: several under torchrun.

    They meet through files. Else torchrun would listen on every interface, for messages that it
    unpickles, whoever sends them.

    Args:
        module: what every rank runs, with its arguments.
        ranks: how many.
        private: a fresh folder that only this user can enter.
    """
    if ranks == 1:
        return module_command(*module)
    return (
        *module_command("launch.starters.ranks"),
        "--rdzv-backend=c10d",
        "--rdzv-conf=store_type=file",
        f"--rdzv-endpoint={private / _TORCHRUN_FILE}",
        f"--local-addr={LOOPBACK}",
        f"--nproc-per-node={ranks}",
        "--max-restarts=0",
        "-m",
        *module,
    )


def rank_environment(threads: int, *, private: Path) -> tuple[tuple[str, str], ...]:
    """The environment of such processes; ``threads`` are torch's in each, 0 as good as 1."""
    return (
        *_for_torch(threads, private=private),
        (RENDEZVOUS, f"file://{private / _RANKS_FILE}"),
        ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1"),
    )


def _for_torch(threads: int, *, private: Path) -> tuple[tuple[str, str], ...]:
    """The environment of torch and vLLM.

    Collectives, also those of a single process, listen where only this machine reaches them. What
    is compiled at run time, and loaded again from files of predictable names (torch.compile:
    ``torchinductor_USER``, vLLM: ``nccl_allocator.so``), is not in a folder where others could put
    theirs first. Compiled headers would go into TMPDIR whatever ``COMPILED`` says, so every start
    would take their seconds, also where all that needs them was compiled before.
    """
    return (
        *_with_threads(threads),
        ("TMPDIR", str(private)),
        (COMPILED, str(private / "compiled")),
        (COMPILED_HEADERS, "0"),
        ("GLOO_SOCKET_IFNAME", LOOPBACK_INTERFACE),
        ("TORCH_CPP_LOG_LEVEL", "ERROR"),  # a name for each socket is not to be had without DNS
    )


def _policy_server(config: Config, files: RunFiles, name: str) -> ProcessPlan:
    return ProcessPlan(
        name=SERVER + name,
        role="policy-server",
        command=_command("actors.inference.server", files, "--name", name),
        environment=_for_torch(config.policy_server.threads, private=files.private),
        own_network=not config.transport.listen,
    )


def _learner(config: Config, files: RunFiles, *, resume: bool) -> ProcessPlan:
    options: tuple[str, ...] = ("--config", str(files.config), "--plan", str(files.plan))
    options += ("--resume",) if resume else ()
    if config.run.profile_steps:
        options += ("--profile-steps", str(config.run.profile_steps))
    return ProcessPlan(
        name=LEARNER,
        role="learner",
        command=rank_processes(
            "learner.main", *options, ranks=config.learner.ranks, private=files.private
        ),
        environment=rank_environment(config.learner.threads, private=files.private),
        own_network=not config.transport.listen and config.run.wandb != "online",
    )


def _actor(files: RunFiles, name: str) -> ProcessPlan:
    return ProcessPlan(
        name=ACTOR + name,
        role="actor",
        command=_command("actors.main", files, "--name", name),
        environment=_with_threads(1),
    )


def _server_names(config: Config) -> tuple[str, ...]:
    return tuple(f"s{index}" for index in range(config.policy_server.count))


def _actor_names(config: Config) -> tuple[str, ...]:
    return tuple(f"a{index}" for index in range(config.actors.processes))


def _listening(config: Config, socket: Path, key: str, *, any_port: bool = False) -> Address:
    """A Unix socket, or where ``transport.listen`` says; a second door there takes any port."""
    host, _, port = config.transport.listen.rpartition(":")
    if not host:
        return Address(bind=str(socket), key=key)
    return Address(bind=host, host=host, port=0 if any_port else int(port), key=key)


def _command(module: str, files: RunFiles, *options: str) -> tuple[str, ...]:
    named = ("--config", str(files.config), "--plan", str(files.plan))
    return module_command(module, *named, *options)


def _with_threads(threads: int) -> tuple[tuple[str, str], ...]:
    return (*_QUIET, ("OMP_NUM_THREADS", str(max(1, threads))))
