"""What ``--resume`` may change: every key of the configuration is either fixed or free.

Fixed is what the saved state was made with and could not mean anything else: the tasks and their
order, the shape of a batch, the model, what an episode is and earns (half-finished groups go on
in the new attempt), and the held-out questions (those before training have been asked). Free is
where and how fast it runs, how the loss is computed, and what is watched: it changes from the next
step on, and is logged.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config import Config
from common.config.ranges import short
from common.config_file import config_from_tables, keys_of, read_tables, tables_of
from common.errors import ConfigError, InputError
from common.json_output import json_text
from launch.plan.evaluation import OF_THE_WORLD
from launch.run.folder import FROM_CHECKPOINT

FIXED: Mapping[str, str] = {
    "run": "seed",
    "model": "path dtype max_context lora.rank lora.alpha lora.targets",
    "world": "enabled seed train_tasks more_wordings",
    "tasks": "train sources train_corpus",
    "tools": "search.provider search.match search.results search.max_characters search.title_weight"
    " web.blocked_domains pages.provider pages.allowed_domains vision.model mcp",
    "agent": "mode tools system_prompt max_steps max_action_tokens max_tokens"
    " max_observation_characters max_tool_calls temperature accepted_actions format_reminders"
    " trim max_segments",
    "rewards": "preset terms process_requires_submission length_tokens judge_trains",
    "learner": "groups group_size",
    "objective": "advantage",
    "evaluation": "per_family greedy_per_family control suites",
}
"""Keys that stay as they were, by section."""

FREE: Mapping[str, str] = {
    "run": "name folder steps grace_s wandb journal keep_journal",
    "tools": "search.service web.requests_per_s web.cache web.cache_mode pages.service"
    " vision.service",
    "policy_server": "count max_sequences threads memory_gib gpu_memory_fraction tensor_parallel",
    "tasks": "kinds file_folders",
    "kernel": "launcher minimum_level kernelspec idle cell_timeout_s memory_mib"
    " sandbox_memory_mib cpu_s workspace_mib cgroup first_uid uids preload_numpy",
    "agent": "tool_timeout_s episode_timeout_s",
    "rewards": "timeout_s workers judge",
    "actors": "processes episodes",
    "transport": "listen silence_s lease_grace_s",
    "learner": "ranks first_gpu threads max_staleness depth pack_tokens updates_per_batch"
    " filter_groups group_timeout_s activation_checkpointing cpu_offload compile replicas"
    " context_parallel learning_rate warmup_steps final_share weight_decay grad_clip"
    " checkpoint_every checkpoint_minutes checkpoints_kept checkpoints_kept_every"
    " mismatch_tolerance batch_timeout_s",
    "objective": "name apg.weight_limits_positive apg.weight_limits_negative apg.kappa apg.t_ref"
    " topr.kappa token_tis.cap token_tis.band gspo.clip decoupled_ppo.clip"
    " decoupled_ppo.behaviour_cap loss_norm discount kl_reference kl_estimator kl_behaviour"
    " entropy gae.learning_rate gae.value_clip gae.step_decay gae.token_discount gae.token_decay",
    "evaluation": "during_every during_pinned",
    "services": "",
}
"""Keys that may change at a resume, by section."""

_LISTS_OF_TABLES = ("evaluation.suites", "tasks.sources")


@dataclass(frozen=True, slots=True)
class Change:
    """A key with another value than the run had, or one that it did not know (``is_new``)."""

    key: str
    then: Any
    now: Any
    is_new: bool = False

    def __str__(self) -> str:
        """For a person."""
        if self.is_new:
            return f"{self.key} is new in this version and is {short(self.now)}"
        return f"{self.key} was {short(self.then)} and is {short(self.now)} now"

    @property
    def option(self) -> str:
        """What gives the earlier value again, for a shell; tables belong into the file."""
        if isinstance(self.then, Mapping) or self.key in _LISTS_OF_TABLES:
            return f"{self.key} in the file"
        return f"--set {shlex.quote(f'{self.key}={json_text(self.then, readable=True)}')}"


def names(table: Mapping[str, str]) -> frozenset[str]:
    """``section.key`` of all keys of ``FIXED`` or ``FREE``."""
    return frozenset(
        f"{section}.{key}" if key else section
        for section in table
        for key in table[section].split() or ("",)
    )


def changes(then: Config, now: Config) -> list[Change]:
    """Keys that differ, but for those that follow from others or were chosen by the run itself."""
    found = [
        Change(key, _value(then, key), _value(now, key))
        for key in keys_of(Config)
        if _value(then, key) != _value(now, key)
    ]
    return [change for change in found if not _follows(change, now)]


def check_continuation(
    file: Path, now: Config, *, steps_done: int | None, is_trained: bool = False
) -> list[Change]:
    """Compare a run's saved configuration with the one that shall go on with it.

    Args:
        file: ``config.json`` of the run; without one and without a checkpoint nothing was begun.
        now: the configuration as it was given.
        steps_done: steps of the newest checkpoint; None without one.
        is_trained: the learner has done all its steps.

    Returns:
        What changes and may.

    Raises:
        InputError: something differs that may not, the run is of another version, or its
            configuration is gone; names every key with both values, and what to do.
    """
    if not file.is_file():
        if steps_done is not None:
            raise InputError(
                f"{file} is gone, but the run has a checkpoint of {steps_done} steps, and "
                f"nothing says how they were made; put it back, or {FROM_CHECKPOINT}"
            )
        return []
    saved, lacking = _saved(file)
    found = [change for change in changes(saved, now) if change.key not in lacking]
    found += [Change(key, None, _value(now, key), is_new=True) for key in lacking]
    fixed = [change for change in found if change.key in names(FIXED)]
    if fixed:
        raise InputError(
            f"the run in {file.parent} cannot go on with another configuration: "
            f"{'; '.join(map(str, fixed))}. Give the earlier values again "
            f"({' '.join(change.option for change in fixed)}), or begin a new run with --name"
        )
    if is_trained and any(change.key == "run.steps" for change in found):
        raise InputError(
            f"run.steps is {now.run.steps}, but training of the run in {file.parent} is over after "
            f"{saved.run.steps} steps; only its last evaluation is left. Give that number, or "
            + FROM_CHECKPOINT
        )
    if steps_done is not None and now.run.steps < steps_done:
        raise InputError(
            f"run.steps is {now.run.steps}, but the run in {file.parent} has a checkpoint of "
            f"{steps_done} steps; give at least as many"
        )
    return found


def _saved(file: Path) -> tuple[Config, list[str]]:
    """The saved configuration, and the free keys that it lacks.

    Raises:
        InputError: this version cannot read it, or it lacks a fixed key.
    """
    try:
        tables = read_tables(file)
        config = config_from_tables(tables, where=str(file))
    except ConfigError as error:
        raise InputError(
            f"the run in {file.parent} was begun by another version or with values that are now "
            f"refused, and cannot be resumed: {error}. Go on with the version that began it, or "
            + FROM_CHECKPOINT
        ) from error
    lacking = sorted(set(keys_of(Config)) - set(_keys_in(tables)))
    fixed = [key for key in lacking if key in names(FIXED)]
    if fixed:
        raise InputError(
            f"the run in {file.parent} was begun by an earlier version, whose configuration lacks "
            f"{', '.join(fixed)}, and cannot be resumed. Go on with the version that began it, or "
            + FROM_CHECKPOINT
        )
    return config, lacking


def _keys_in(tables: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All keys of a saved configuration, tables of free names also as one."""
    for name, value in tables.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from _keys_in(value, f"{prefix}{name}.")


def _value(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return tables_of(value)


def _follows(change: Change, now: Config) -> bool:
    """Whether a key's value is none that a person gave."""
    if not now.world.enabled:
        return False
    if change.key == "evaluation.suites":
        return _own(change.then) == _own(change.now)
    # Inside the run's folder, wherever that is now.
    return change.key.startswith("tasks.") and change.key in names(FIXED)


def _own(suites: Any) -> list[Any]:
    """Suites that are not the embedded world's, whose files follow from its seed."""
    return [suite for suite in suites if suite["name"] not in OF_THE_WORLD]
