"""The settings of supervised fine-tuning: options of a command line, or keys of a TOML file."""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.config.ranges import MANY, Range, short
from common.config_file import read_tables
from common.errors import ConfigError
from common.json_output import as_number, json_text


@dataclass(frozen=True, kw_only=True, slots=True)
class SftConfig:
    """One run of supervised fine-tuning; every field is an option of the command line."""

    model: str
    """Folder of the model to start from."""
    traces: str
    """Trace file: JSON lines with ``segments`` or with ``messages``."""
    output: str
    """Folder for the result."""
    epochs: int = 1
    """How often every trace is seen."""
    batch: int = 16
    """Traces per optimizer step."""
    context_weight: float = 0.3
    """Loss weight of tokens outside actions."""
    normaliser: float = 52.0
    """The loss of a batch is divided by this times ``batch``; about the weight of a mean trace."""
    optimizer: str = "muon"
    """``muon``: for the matrices inside the layers, AdamW for the rest; ``adamw``: for all."""
    muon_learning_rate: float = 0.02
    """For matrices inside the layers, with ``muon``."""
    adamw_learning_rate: float = 3e-3
    """For embeddings, output layer and norms; with ``adamw`` for everything."""
    warmup_steps: int = 50
    """Steps over which the learning rates rise from 0."""
    final_share: float = 0.02
    """Learning rates fall linearly to this share."""
    grad_clip: float = 1.0
    """Largest L2 norm of the gradient; a larger one is scaled down to it."""
    pack_tokens: int = 8192
    """Token budget of one forward and backward pass; no trace may be longer."""
    seed: int = 0
    """Order of the traces."""
    ranks: int = 1
    """Processes that ``lzero sft`` starts."""
    threads: int = 1
    """Torch threads per process."""
    compute_dtype: str = "float32"
    """Type of the computation, float32 or bfloat16; weights and optimizer are in float32."""
    activation_checkpointing: str = "none"
    """What the backward pass computes again: none, selective or full."""
    save_dtype: str = "bfloat16"
    """Type of the saved weights: float32, bfloat16 or float16."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 for none."""
    checkpoints: str = ""
    """Folder of the checkpoints; empty for the output's name with ``-checkpoints``."""
    checkpoints_kept: int = 2
    """Newest checkpoints that are kept; older ones are removed."""
    resume: bool = False
    """Go on from the newest checkpoint."""
    log_every: int = 100
    """Steps between two lines of progress."""

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        for name, allowed in RANGES.items():
            value = getattr(self, name)
            if fault := allowed.fault(value):
                raise ConfigError(
                    f"{_option(name)} must be {fault}, got {short(value)} ({allowed.describe()})"
                )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{_option(name)} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}"
                )

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoints are."""
        return Path(self.checkpoints or f"{self.output.rstrip('/')}-checkpoints")

    def save(self, path: Path) -> None:
        """Write it as JSON, for the processes of the run."""
        path.write_text(json_text(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


RANGES = {
    "epochs": Range("epochs", least=1, most=100_000),
    "batch": Range("traces", least=1, most=1 << 24),
    "context_weight": Range("weight", least=0, most=1e6),
    "normaliser": Range("weight", above=0, most=1e12),
    "muon_learning_rate": Range("per step", least=0, most=10),
    "adamw_learning_rate": Range("per step", least=0, most=10),
    "warmup_steps": Range("steps", least=0, most=MANY),
    "final_share": Range("share", least=0, most=1),
    "grad_clip": Range("L2 norm", above=0, most=1e12),
    "pack_tokens": Range("tokens", least=1, most=MANY),
    "seed": Range("seed", least=0, most=MANY),
    "ranks": Range("processes", least=1, most=65536),
    "threads": Range("threads", least=1, most=4096),
    "checkpoint_every": Range("steps", least=0, most=MANY),
    "checkpoints_kept": Range("checkpoints", least=1, most=MANY),
    "log_every": Range("steps", least=1, most=MANY),
}
"""The range of every number."""
_CHOICES = {
    "optimizer": ("muon", "adamw"),
    "compute_dtype": ("float32", "bfloat16"),
    "activation_checkpointing": ("none", "selective", "full"),
    "save_dtype": ("float32", "bfloat16", "float16"),
}
_REQUIRED = ("model", "traces", "output")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser every option, and a configuration file instead of or below them."""
    parser.add_argument("--config", type=Path, help="TOML or JSON file with these options as keys")
    for field in fields(SftConfig):
        if field.type is bool:
            parser.add_argument(_option(field.name), action="store_true", default=None)
        else:
            kind = field.type if isinstance(field.type, type) else str
            parser.add_argument(_option(field.name), type=kind, default=None, metavar="VALUE")


def config_from_options(options: Mapping[str, Any]) -> SftConfig:
    """The settings: of the file that ``config`` names, with the other options over them.

    Raises:
        ConfigError: the file cannot be used, something required is missing, or a value is wrong.
    """
    known = {field.name: field for field in fields(SftConfig)}
    values = read_tables(options["config"]) if options.get("config") else {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{options['config']}: unknown key '{name}'; known: {sorted(known)}")
        kind = known[name].type
        values[name] = as_number(value) if kind is float else value
        if type(values[name]) is not kind:
            expected = getattr(kind, "__name__", kind)
            raise ConfigError(f"{options['config']}: {name} must be {expected}, got {short(value)}")
    given = {name: options[name] for name in known if options.get(name) is not None}
    values |= given
    missing = [_option(name) for name in _REQUIRED if not values.get(name)]
    if missing:
        raise ConfigError(f"{', '.join(missing)} missing; give options or a configuration file")
    return SftConfig(**values)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
