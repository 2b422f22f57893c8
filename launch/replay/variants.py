"""The settings to train with: those of the run, and variants of them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config import Config
from common.config.overrides import apply_override
from common.config_file import config_from_tables, keys_of, tables_of
from common.errors import InputError
from launch.run.config_pairs import check_learning
from launch.run.continuation import changes

OWN = "as it was"
"""What the run's own settings are called."""

CHANGEABLE = frozenset(
    {key for key in keys_of(Config) if key.startswith("objective.")}
    | {
        f"learner.{name}"
        for name in [
            "learning_rate",
            "warmup_steps",
            "final_share",
            "weight_decay",
            "grad_clip",
            "pack_tokens",
            "updates_per_batch",
            "max_staleness",
            "activation_checkpointing",
            "cpu_offload",
            "compile",
        ]
    }
)
"""What the learner's step reads; everything else was decided before the journal was written."""

_TABLES_OF_CHOICES = {"name": ("apg", "topr", "token_tis", "gspo", "decoupled_ppo"),
                      "advantage": ("gae",)}  # fmt: skip
"""Tables of ``[objective]`` that belong to one value of a key, and are refused with another."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings with a name for people."""

    name: str
    config: Config

    def differs_from(self, own: Config) -> bool:
        """Whether any key has another value."""
        return bool(changes(own, self.config))


def variant_of(own: Config, settings: Sequence[str]) -> Variant:
    """The run's settings with some that are ``section.key=value``.

    Constants of an objective, or of a critic, that the variant does not use are left out.

    Raises:
        ConfigError: a setting cannot be read, or excludes another.
        InputError: the learner's step does not read it.
    """
    tables: dict[str, Any] = tables_of(own)
    given: dict[str, Any] = {}
    for setting in settings:
        apply_override(Config, given, setting)
    for key, names in _TABLES_OF_CHOICES.items():
        chosen = given.get("objective", {}).get(key, tables["objective"][key])
        if chosen != tables["objective"][key]:
            for name in names:
                tables["objective"].pop(name, None)
    for setting in settings:
        apply_override(Config, tables, setting)
    config = config_from_tables(tables, where=f"--set {' '.join(settings)}")
    _check_changeable(own, config)
    check_learning(config)
    return Variant(" ".join(settings), config)


def _check_changeable(own: Config, config: Config) -> None:
    refused = [change.key for change in changes(own, config) if change.key not in CHANGEABLE]
    if refused:
        named = ", ".join(
            sorted(CHANGEABLE - {k for k in CHANGEABLE if k.startswith("objective.")})
        )
        raise InputError(
            f"--set {refused[0]}: a replay may change only what the learner's step reads, which is "
            f"objective.* and {named}; what was sampled and taken into batches stays as it was. "
            "Begin a new run to change it"
        )


def at_ranks(config: Config, ranks: int) -> Config:
    """The same for another number of ranks, on the GPUs from the first on, if there are any."""
    tables: Mapping[str, Any] = tables_of(config)
    learner = {**tables["learner"], "first_gpu": 0}
    if ranks != config.learner.ranks:
        learner |= {"ranks": ranks, "replicas": 1, "context_parallel": 1}
    return config_from_tables({**tables, "learner": learner}, where="--ranks")
