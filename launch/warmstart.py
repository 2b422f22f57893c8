"""Makes the shipped starting policy again, from nothing: ``make warmstart``.

Tokenizer, random weights and traces come from one seed; ``learner.sft`` does the training. The
result is a Hugging Face folder that ``lzero train launch/presets/quickstart.toml`` starts from.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common.errors import RunFailed
from launch.world.tiny_model import untie, write_initial_model
from launch.world.tokenizer import train_tokenizer
from launch.world.traces import write_traces

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "presets" / "warmstart"
"""Where the repository keeps the starting policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What the starting policy is made of."""

    seed: int = 0
    """Of tokenizer, weights, training worlds and demonstrations."""
    traces: int = 28000
    """Demonstrations, each seen once."""
    threads: int = 2
    """Torch threads."""


def make_warm_start(output: Path, recipe: Recipe) -> None:
    """Write the starting policy to ``output``.

    Raises:
        RunFailed: the training process failed; its last lines are on the terminal.
    """
    with tempfile.TemporaryDirectory(prefix="lzero-warmstart-") as scratch:
        initial, traces = Path(scratch) / "initial", Path(scratch) / "traces.jsonl"
        began = time.monotonic()
        parameters = write_initial_model(initial, train_tokenizer(recipe.seed), recipe.seed)
        log.info("wrote initial model parameters=%d", parameters)
        write_traces(traces, recipe.seed, recipe.traces)
        log.info("wrote traces count=%d seconds=%.0f", recipe.traces, time.monotonic() - began)
        _train(initial, traces, output, recipe)
        untie(output)
    log.info("finished warm start path=%s seconds=%.0f", output, time.monotonic() - began)


def _train(initial: Path, traces: Path, output: Path, recipe: Recipe) -> None:
    options = {
        "model": initial,
        "traces": traces,
        "output": output,
        "seed": recipe.seed,
        "threads": recipe.threads,
    }
    listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "learner.sft", *listed]
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        raise RunFailed(f"learner.sft ended with exit code {code}; its messages are above")


def main() -> None:
    """Entry point of ``python -m launch.warmstart``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(description="Make the shipped starting policy again.")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    defaults = Recipe()
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--traces", type=int, default=defaults.traces)
    parser.add_argument("--threads", type=int, default=defaults.threads)
    options = parser.parse_args()
    recipe = Recipe(seed=options.seed, traces=options.traces, threads=options.threads)
    make_warm_start(options.output, recipe)


if __name__ == "__main__":
    main()
