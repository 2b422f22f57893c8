"""The settings of supervised fine-tuning: a table ``[sft]`` in a file, or options of a command."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from common.config.meaning import facts_of, keys_in
from common.config.overrides import typed_text
from common.config.ranges import MANY, Range, Section, Share
from common.config_file import from_tables, key_names, read_tables, tables_of
from common.errors import ConfigError
from common.json_output import json_text
from common.whole_file import write_whole

Rate = Annotated[float, Range("per step", least=0, most=10)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sft(Section):
    """One run of supervised fine-tuning; every key is also an option of ``lzero sft``."""

    AT: ClassVar[str] = "sft"

    model: str
    """Folder of the model to start from."""
    traces: str
    """Trace file: JSON lines with ``segments`` or with ``messages``."""
    output: str
    """Folder for the result."""
    epochs: Annotated[int, Range("epochs", least=1, most=100_000)] = 1
    """How often every trace is seen."""
    batch: Annotated[int, Range("traces", least=1, most=1 << 24)] = 16
    """Traces per optimizer step."""
    context_weight: Annotated[float, Range("weight", least=0, most=1e6)] = 0.3
    """Loss weight of tokens outside actions."""
    normaliser: Annotated[float, Range("weight", above=0, most=1e12)] = 52.0
    """The loss of a batch is divided by this times ``batch``; about the weight of a mean trace."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """``muon``: for the matrices inside the layers, AdamW for the rest; ``adamw``: for all."""
    muon_learning_rate: Rate = 0.02
    """For matrices inside the layers, with ``muon``."""
    adamw_learning_rate: Rate = 3e-3
    """For embeddings, output layer and norms; with ``adamw`` for everything."""
    warmup_steps: Annotated[int, Range("steps", least=0, most=MANY)] = 50
    """Steps over which the learning rates rise from 0."""
    final_share: Share = 0.02
    """Learning rates fall linearly to this share."""
    grad_clip: Annotated[float, Range("L2 norm", above=0, most=1e12)] = 1.0
    """Largest L2 norm of the gradient; a larger one is scaled down to it."""
    pack_tokens: Annotated[int, Range("tokens", least=1, most=MANY)] = 8192
    """Token budget of one forward and backward pass; no trace may be longer."""
    seed: Annotated[int, Range("seed", least=0, most=MANY)] = 0
    """Order of the traces."""
    ranks: Annotated[int, Range("processes", least=1, most=65536)] = 1
    """Processes that ``lzero sft`` starts."""
    threads: Annotated[int, Range("threads", least=0, most=4096)] = 0
    """Torch threads per process; 0 for what suits the model and the cores."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the computation; ``auto``: bfloat16 where the machine computes faster in it, else
    float32. Weights and optimizer are in float32."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again: nothing; all but attention; every layer."""
    save_dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Type of the saved weights."""
    checkpoint_every: Annotated[int, Range("steps", least=0, most=MANY)] = 0
    """Steps between checkpoints; 0 for none."""
    checkpoints: str = ""
    """Folder of the checkpoints; empty for the output's name with ``-checkpoints``."""
    checkpoints_kept: Annotated[int, Range("checkpoints", least=1, most=MANY)] = 2
    """Newest checkpoints that are kept; older ones are removed."""
    resume: bool = False
    """Go on from the newest checkpoint."""
    log_every: Annotated[int, Range("steps", least=1, most=MANY)] = 100
    """Steps between two lines of progress."""

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoints are."""
        return Path(self.checkpoints or f"{self.output.rstrip('/')}-checkpoints")

    def save(self, path: Path) -> None:
        """Write a file with it, for the processes of the run."""
        write_whole(path, json_text(tables_of(FineTuning(sft=self)), indent=1) + "\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuning:
    """A file of ``lzero sft``."""

    sft: Sft


REQUIRED = ("model", "traces", "output")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser every key as an option, and a configuration file instead of or below them."""
    parser.add_argument("--config", type=Path, help="TOML or JSON file with a table [sft]")
    for key in keys_in(Sft):
        text = f"{key.meaning} ({facts_of(key)})".replace("``", "`").replace("%", "%%")
        if key.default is False:
            parser.add_argument(option(key.name), action="store_true", default=None, help=text)
        else:
            parser.add_argument(option(key.name), default=None, metavar="VALUE", help=text)


def config_from_options(options: Mapping[str, Any]) -> Sft:
    """The settings: of the file that ``config`` names, with the other options over them.

    Raises:
        ConfigError: the file cannot be used, something required is missing, or a value is wrong.
    """
    file, keys = options.get("config"), key_names(Sft)
    tables = read_tables(file) if file else {}
    for name in filter(keys.__contains__, tables):
        raise ConfigError(f"{file}: {name} is now sft.{name}: put [sft] above the keys")
    given = {
        name: typed_text(Sft, name, options[name], shown=option(name))
        for name in keys
        if options.get(name) is not None
    }
    below = tables.get("sft", {})
    if isinstance(below, Mapping):
        tables["sft"] = {**below, **given}
        missing = [option(name) for name in REQUIRED if not tables["sft"].get(name)]
        if missing:
            raise ConfigError(f"{', '.join(missing)} missing; give options or a file with [sft]")
    return from_tables(FineTuning, tables, where=str(file or "lzero sft")).sft


def option(name: str) -> str:
    """The option of the command line for a key."""
    return f"--{name.replace('_', '-')}"
