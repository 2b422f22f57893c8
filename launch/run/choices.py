"""What a run chooses itself where its configuration leaves it open: compute type and threads."""

import dataclasses
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.child_process import child_command, module_environment
from common.config import Config
from common.config_file import read_tables
from common.errors import RunError
from common.json_output import json_text
from common.model_config import read_model_config
from common.processor import bfloat16_instructions, cores
from common.whole_file import write_whole
from learner.engine.model_shape import shape_of
from learner.sft.config import Sft

Dtype = Literal["float32", "bfloat16"]

OPEN = "auto"
"""A compute type that is still to be chosen; for threads that is 0."""

SMALL = 16_000_000
"""Parameters below which a model is computed in float32 by one thread: a bound between the shipped
model and one of 135 million, see "Compute type and threads" in docs/engine.md."""

_GPU_DRIVER = Path("/dev/nvidiactl")
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class OwnChoice:
    """A key, its value, and why."""

    key: str
    value: str
    reason: str

    def __str__(self) -> str:
        """For a person."""
        return f"{self.key} = {self.value}: {self.reason}"


def choose(config: Config) -> tuple[Config, tuple[OwnChoice, ...]]:
    """The configuration with what it left open, and what was chosen.

    Args:
        config: its model folder can be read.

    Raises:
        InputError: the model folder cannot be used.
        RunError: the machine could not be asked.
    """
    folder, made = Path(config.model.path), []
    model, learner, server = config.model, config.learner, config.policy_server
    if model.dtype == OPEN:
        dtype, reason = compute_type(folder)
        made.append(OwnChoice("model.dtype", dtype, reason))
        model = dataclasses.replace(model, dtype=dtype)
    if not learner.threads:
        threads, reason = threads_for(folder, processes=learner.ranks)
        made.append(OwnChoice("learner.threads", str(threads), reason))
        learner = dataclasses.replace(learner, threads=threads)
    if not server.threads:
        threads, reason = threads_for(folder, processes=server.count)
        made.append(OwnChoice("policy_server.threads", str(threads), reason))
        server = dataclasses.replace(server, threads=threads)
    chosen = dataclasses.replace(config, model=model, learner=learner, policy_server=server)
    return chosen, tuple(made)


def choose_for_sft(config: Sft) -> tuple[Sft, tuple[OwnChoice, ...]]:
    """The same for fine-tuning.

    Raises:
        InputError: the model folder cannot be used.
        RunError: the machine could not be asked.
    """
    folder, made = Path(config.model), []
    if config.compute_dtype == OPEN:
        dtype, reason = compute_type(folder)
        made.append(OwnChoice("sft.compute_dtype", dtype, reason))
        config = dataclasses.replace(config, compute_dtype=dtype)
    if not config.threads:
        threads, reason = threads_for(folder, processes=config.ranks)
        made.append(OwnChoice("sft.threads", str(threads), reason))
        config = dataclasses.replace(config, threads=threads)
    return config, tuple(made)


def as_begun(config: Config, saved: Path) -> Config:
    """The compute type that a run began with, where the configuration leaves it open."""
    if config.model.dtype != OPEN or not saved.is_file():
        return config
    dtype = read_tables(saved).get("model", {}).get("dtype", OPEN)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dtype=dtype))


def compute_type(folder: Path) -> tuple[Dtype, str]:
    """The compute type for a model on this machine, and the reason.

    Raises:
        InputError: the model folder cannot be used.
        RunError: the machine could not be asked.
    """
    parameters = shape_of(read_model_config(folder)).parameters
    if not _GPU_DRIVER.exists():
        if not bfloat16_instructions():
            return "float32", "the processor has no instructions for bfloat16"
        if parameters < SMALL:
            return "float32", f"{_millions(parameters)} parameters are too few to gain by less"
    return _asked(folder)


def threads_for(folder: Path, *, processes: int = 1) -> tuple[int, str]:
    """Threads of each of ``processes`` that compute with a model at once, and the reason.

    Raises:
        InputError: the model folder cannot be used.
    """
    if _GPU_DRIVER.exists():
        return 1, "the GPU computes"
    parameters, usable = shape_of(read_model_config(folder)).parameters, cores()
    if parameters < SMALL:
        return 1, f"{_millions(parameters)} parameters are too few to share their products"
    return max(1, usable // processes), f"{_millions(parameters)} parameters, {usable} cores"


def write_choices(path: Path, choices: tuple[OwnChoice, ...]) -> None:
    """Write what was chosen, for the summary."""
    write_whole(path, json_text([dataclasses.asdict(choice) for choice in choices]) + "\n")


def read_choices(path: Path) -> tuple[OwnChoice, ...]:
    """What ``write_choices`` wrote; nothing where it did not."""
    return (
        tuple(OwnChoice(**made) for made in json.loads(path.read_text())) if path.exists() else ()
    )


def _asked(folder: Path) -> tuple[Dtype, str]:
    """What ``learner.engine.compute_type`` says; torch stays out of this process."""
    command = child_command("learner.engine.compute_type", str(folder), f"--threads={cores()}")
    environment = module_environment({**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    try:
        asked = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
        told = json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        said = getattr(error, "stderr", None) or error
        raise RunError(
            f"the machine could not be asked for its fastest compute type: {said}; "
            'set model.dtype to "float32" or "bfloat16"'
        ) from error
    return told["dtype"], told["reason"]


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.3g} million"
