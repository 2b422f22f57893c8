"""The settings of supervised fine-tuning: options of a command line, or keys of a TOML file."""

import argparse
import dataclasses
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.errors import ConfigError, InputError
from common.json_text import parse_json, read_text


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
    final_share: float = 0.02
    """Learning rates fall linearly to this share."""
    grad_clip: float = 1.0
    pack_tokens: int = 8192
    """Token budget of one forward and backward pass; no trace may be longer."""
    seed: int = 0
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
    resume: bool = False
    """Go on from the newest checkpoint."""
    log_every: int = 100

    def __post_init__(self) -> None:
        """Check ranges and choices."""
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            # Not `value < least`: what is no number must not pass.
            if not least <= value <= most:
                raise ConfigError(f"{_option(name)} must be {_said(least, most)}, got {value}")
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
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


_TINY = sys.float_info.min
_HUGE = sys.float_info.max
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, _HUGE),
    "batch": (1, _HUGE),
    "ranks": (1, _HUGE),
    "threads": (1, _HUGE),
    "pack_tokens": (1, _HUGE),
    "checkpoints_kept": (1, _HUGE),
    "log_every": (1, _HUGE),
    "checkpoint_every": (0, _HUGE),
    "warmup_steps": (0, _HUGE),
    "seed": (0, 2**63 - 1),
    "context_weight": (0, 1e6),
    "normaliser": (_TINY, _HUGE),
    "muon_learning_rate": (0, 100),
    "adamw_learning_rate": (0, 100),
    "final_share": (0, 1),
    "grad_clip": (_TINY, _HUGE),
}
"""Smallest and largest value of each number."""

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
    values = _read(options["config"]) if options.get("config") else {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{options['config']}: unknown key '{name}'; known: {sorted(known)}")
        kind = known[name].type
        if kind is float and type(value) is int:
            values[name] = float(value)
        elif type(value) is not kind:
            expected = getattr(kind, "__name__", kind)
            raise ConfigError(f"{options['config']}: {name} must be {expected}, got {value!r}")
    given = {name: options[name] for name in known if options.get(name) is not None}
    values |= given
    missing = [_option(name) for name in _REQUIRED if not values.get(name)]
    if missing:
        raise ConfigError(f"{', '.join(missing)} missing; give options or a configuration file")
    return SftConfig(**values)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path, what="configuration")
        values = parse_json(text, str(path)) if path.suffix == ".json" else tomllib.loads(text)
    except (InputError, ValueError, RecursionError) as error:
        raise ConfigError(f"configuration {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"configuration {path} must hold an object, got {values!r:.60}")
    return values


def _said(least: float, most: float) -> str:
    low = "above 0" if least == _TINY else f"at least {least:g}"
    return low if most == _HUGE else f"{low} and at most {most:g}"


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
