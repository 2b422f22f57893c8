"""Keys that there were once: each is refused with what to write instead.

Fields that are no keys any more but still have a name in the code need no line here: they are
refused with their value (``common.config.ranges.FIXED``).
"""

import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from common.config.ranges import is_key

_PLAIN = re.compile(r"\w+(\.\w+)*")
"""A key, and not a sentence about several."""

_SUITE = "a table [[evaluation.suites]]"

RENAMED: Mapping[str, str] = {
    "search.provider": "tools.search.provider",
    "search.match": "tools.search.match",
    "search.results": "tools.search.results",
    "search.max_characters": "tools.search.max_characters",
    "web.requests_per_s": "tools.web.requests_per_s",
    "web.cache": "tools.web.cache",
    "web.cache_mode": "tools.web.cache_mode",
    "web.blocked_domains": "tools.web.blocked_domains",
    "pages.provider": "tools.pages.provider",
    "pages.allowed_domains": "tools.pages.allowed_domains",
    "vision.model": "tools.vision.model",
    "search.base_url": "base_url of a table [services.NAME], which tools.search.service names",
    "search.api_key_env": "api_key_env of a table [services.NAME], which tools.search.service "
    "names",
    "pages.base_url": "base_url of a table [services.NAME], which tools.pages.service names",
    "pages.api_key_env": "api_key_env of a table [services.NAME], which tools.pages.service names",
    "vision.base_url": "base_url of a table [services.NAME], which tools.vision.service names",
    "vision.api_key_env": "api_key_env of a table [services.NAME], which tools.vision.service "
    "names",
    "mcp.servers": "tools.mcp, one table [tools.mcp.NAME] each",
    "sandbox.minimum_level": "kernel.minimum_level",
    "sandbox.unsafe_no_sandbox": "kernel.minimum_level = 'unsafe'",
    "tasks.heldout": f"tasks of {_SUITE}",
    "tasks.heldout_corpus": f"corpus of {_SUITE}",
    "search.disabled": f"search_disabled of {_SUITE}",
    "transport.port": "transport.listen, as ADDRESS:PORT",
    "objective.weight_limits_positive": "objective.apg.weight_limits_positive",
    "objective.weight_limits_negative": "objective.apg.weight_limits_negative",
    "objective.kappa": "objective.apg.kappa or objective.topr.kappa",
    "objective.t_ref": "objective.apg.t_ref",
    "objective.token_cap": "objective.token_tis.cap",
    "objective.token_band": "objective.token_tis.band",
    "objective.gspo_clip": "objective.gspo.clip",
    "objective.ppo_clip": "objective.decoupled_ppo.clip",
    "objective.behaviour_cap": "objective.decoupled_ppo.behaviour_cap",
    "critic.learning_rate": "objective.gae.learning_rate",
    "critic.value_clip": "objective.gae.value_clip",
    "critic.step_decay": "objective.gae.step_decay",
    "critic.token_discount": "objective.gae.token_discount",
    "critic.token_decay": "objective.gae.token_decay",
}
"""What a key is called now."""

REMOVED: Mapping[str, str] = {
    "run.log_every": "every step has its line in metrics.jsonl",
    "run.profile_steps": "use lzero train --profile, which traces two steps",
    "run.wandb_project": "set WANDB_PROJECT in the environment",
    "world.heldout_seed": "it is world.seed + 1 now",
    "web.attempts": "it is fixed at 3 now",
    "web.max_response_mib": "it is fixed at 8 now",
    "web.timeout_s": "it is fixed at 20 now; agent.tool_timeout_s bounds a whole call",
    "pages.max_characters": "it is fixed at 20000 now",
    "files.max_characters": "it is fixed at 20000 now",
    "vision.max_tokens": "it is fixed at 512 now",
    "policy_server.port": "it listens on a Unix socket in the run's private folder now",
    "policy_server.request_timeout_s": "it is agent.episode_timeout_s now",
    "policy_server.request_attempts": "it is fixed at 5 now",
    "transport.resend_s": "it is a sixth of transport.silence_s now",
    "transport.heartbeat_s": "it is a thirtieth of transport.silence_s now",
    "learner.betas": "they are fixed at 0.9 and 0.95 now",
    "learner.filter_patience": "it is fixed at 4 now",
    "learner.checkpoint_async": "checkpoints are always written beside the training steps now",
    "learner.verify_updates": "it is fixed at 5 now",
    "learner.verify_every": "it is fixed at 10 now",
    "learner.skipped_steps": "it is fixed at 5 now",
    "learner.ess_warning": "it is fixed at 0.5 now",
    "learner.mismatch_warning": "it is fixed at 0.005 now",
    "evaluation.during_per_family": "it is fixed at 32 now",
    "evaluation.seed": "questions are asked in the order of their file",
}
"""Why a key is gone."""

BEFORE: Mapping[str, Any] = {"tools.search.title_weight": 1.0}
"""What was so before there was a key: a run of then goes by it, and not by the default of today."""


def refusal(kind: type, tables: Mapping[str, Any]) -> str:
    """What is wrong with the first key that is no key any more; empty if all may be known."""
    for key in _paths(tables):
        if key in RENAMED:
            return f"{key} is now {RENAMED[key]}"
        if key in REMOVED:
            return f"{key} is no key any more: {REMOVED[key]}"
        value = _fixed(kind, key.split("."))
        if value is not None:
            return f"{key} is no key any more: it is fixed at {value} now"
    return ""


def as_named_now(kind: type, tables: Mapping[str, Any]) -> dict[str, Any]:
    """What of an earlier version's configuration says something today, under today's names.

    Values of keys that only a person can carry over, and of those that are gone, are left out.
    Where there was no key yet, what was so then is said.
    """
    found: dict[str, Any] = {}
    for key, value in (*BEFORE.items(), *_leaves(tables)):
        name = RENAMED.get(key, key)
        is_gone = key in REMOVED or not _PLAIN.fullmatch(name)
        if not is_gone and _fixed(kind, name.split(".")) is None:
            *sections, last = name.split(".")
            table = found
            for section in sections:
                table = table.setdefault(section, {})
            table[last] = value
    return found


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        elif not isinstance(value, Mapping):
            yield f"{prefix}{name}", value


def _paths(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in table.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")


def _fixed(kind: Any, parts: list[str]) -> Any:
    """The value of a field that is no key; None for everything else."""
    known = {field.name: field for field in fields(kind)}
    if parts[0] not in known:
        return None
    hint = typing.get_type_hints(kind, include_extras=True)[parts[0]]
    if len(parts) == 1:
        return None if is_key(hint) else known[parts[0]].default
    return _fixed(hint, parts[1:]) if is_dataclass(hint) else None
