"""Keys of a configuration that exclude each other in a training run.

The configuration itself checks each number and what holds for any use; a stand-alone agent, for
instance, has no batches to wait for.
"""

import os
from collections.abc import Iterator

from actors.kernels.limits.id_ranges import SPARE
from common.config import Config
from common.config.checks import require

_CHARACTERS_PER_TOKEN = 16
"""More than any tokenizer packs into a token on average."""

_LEAST_TEMPERATURE = 0.01
"""Below it the policy server takes the likeliest token, or as good as always."""


def check_pairs(config: Config) -> None:
    """Check what two keys together make impossible.

    Raises:
        ConfigError: names both keys, their values and what to do.
    """
    for holds, message in (
        *_tasks(config),
        *_lengths(config),
        *_memory(config),
        *_times(config),
        *_processes(config),
        *_learning(config),
    ):
        require(holds, message)


def check_learning(config: Config) -> None:
    """The same, for what the learner's step alone reads."""
    for holds, message in _learning(config):
        require(holds, message)


Checked = Iterator[tuple[bool, str]]


def _tasks(config: Config) -> Checked:
    yield (
        not (config.world.enabled and config.tasks.sources),
        "world.enabled and [[tasks.sources]] exclude each other: the generated encyclopedia brings "
        "its own tasks; take one of them out",
    )


def _lengths(config: Config) -> Checked:
    agent, context = config.agent, config.model.max_context
    longest = context * _CHARACTERS_PER_TOKEN
    yield (
        agent.max_observation_characters <= longest,
        f"agent.max_observation_characters ({agent.max_observation_characters}) must be at most "
        f"{longest} with model.max_context {context}: a longer observation fits no context",
    )


def _memory(config: Config) -> Checked:
    kernel = config.kernel
    yield (
        kernel.memory_mib <= kernel.sandbox_memory_mib,
        f"kernel.memory_mib ({kernel.memory_mib}), of one process, must be at most "
        f"kernel.sandbox_memory_mib ({kernel.sandbox_memory_mib}), of its whole sandbox",
    )
    yield (
        2 * kernel.workspace_mib <= kernel.sandbox_memory_mib,
        f"kernel.workspace_mib ({kernel.workspace_mib}) must be at most half of "
        f"kernel.sandbox_memory_mib ({kernel.sandbox_memory_mib}): /workspace and /tmp have that "
        "size each, and their files count as memory",
    )


def _times(config: Config) -> Checked:
    agent, kernel, learner = config.agent, config.kernel, config.learner
    yield (
        learner.batch_timeout_s > config.lease_timeout_s,
        f"learner.batch_timeout_s ({learner.batch_timeout_s:g}) must be above "
        f"agent.episode_timeout_s ({agent.episode_timeout_s:g}) + transport.lease_grace_s "
        f"({config.transport.lease_grace_s:g}), or one episode that hangs ends the run before its "
        "task is handed out again",
    )
    yield (
        config.transport.lease_grace_s > config.rewards.timeout_s,
        f"transport.lease_grace_s ({config.transport.lease_grace_s:g}) must be above "
        f"rewards.timeout_s ({config.rewards.timeout_s:g}), or an episode is given up while it is "
        "scored",
    )
    yield (
        kernel.cell_timeout_s <= kernel.cpu_s,
        f"kernel.cell_timeout_s ({kernel.cell_timeout_s:g}) must be at most kernel.cpu_s "
        f"({kernel.cpu_s:g}), or a cell that computes costs its kernel before its time is up",
    )


def _processes(config: Config) -> Checked:
    learner = config.learner
    parts = learner.replicas * learner.context_parallel
    yield (
        learner.ranks % parts == 0,
        f"learner.ranks is {learner.ranks}, which is no multiple of learner.replicas "
        f"({learner.replicas}) x learner.context_parallel ({learner.context_parallel}) = {parts}; "
        "change one of the three",
    )
    kernel, actors = config.kernel, config.actors
    alive = actors.processes * (actors.episodes + kernel.idle)
    yield (
        kernel.minimum_level == "unsafe" or os.geteuid() != 0 or alive + SPARE <= kernel.uids,
        f"kernel.uids is {kernel.uids}, but actors.processes ({actors.processes}) x "
        f"(actors.episodes ({actors.episodes}) + kernel.idle ({kernel.idle})) = {alive} kernels "
        f"can live at once and {SPARE} ids are reserved; set kernel.uids to at least "
        f"{alive + SPARE}",
    )


def _learning(config: Config) -> Checked:
    agent, learner, objective = config.agent, config.learner, config.objective
    yield (
        agent.temperature >= _LEAST_TEMPERATURE,
        f"agent.temperature must be at least {_LEAST_TEMPERATURE} to train, got "
        f"{agent.temperature:g}: without chance all members of a group are the same, and "
        "log-probabilities say nothing",
    )
    yield (
        objective.advantage != "group_loo" or learner.group_size >= 2,
        f"learner.group_size must be at least 2 with objective.advantage = 'group_loo', got "
        f"{learner.group_size}: a trajectory without others of its task has no advantage, and "
        "nothing would be learned; use 'reinforce_pp' for single trajectories",
    )
    yield (
        learner.filter_groups != "no_signal" or learner.group_size >= 2,
        f"learner.filter_groups = 'no_signal' needs a learner.group_size of at least 2, got "
        f"{learner.group_size}: every group of one is without signal",
    )
