"""Makes the shipped starting policy again, from nothing: ``make warmstart``.

Tokenizer, random weights and traces come from one seed; ``learner.sft.main`` does the training. The
result is a Hugging Face folder that ``lzero train launch/presets/quickstart.toml`` starts from.
"""

import argparse
import logging
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common.child_process import SOURCE_ROOT, child_command, module_environment
from common.errors import RunError
from common.telemetry.log_lines import configure_logging
from launch.data.world.questions import KINDS
from launch.data.world.tiny_model import untie, write_initial_model
from launch.data.world.tokenizer import train_tokenizer
from launch.data.world.traces import write_traces

log = logging.getLogger(__name__)

SHIPPED = SOURCE_ROOT / "launch" / "presets" / "warmstart"
"""Where the repository keeps the starting policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """One run of ``learner.sft.main`` on traces of its own."""

    seed: int
    """Added to the recipe's seed for the traces."""
    traces: int
    """Demonstrations, each seen once."""
    practice: float = 0.0
    """Share that only practises copying; see ``launch.data.world.traces.render_practice``."""
    practice_kinds: tuple[str, ...] = ()
    """Kinds of question to practise, repeated by how often; all alike if empty."""
    muon_learning_rate: float = 0.012
    adamw_learning_rate: float = 2e-3


PHASES = (
    Phase(seed=0, traces=28000, muon_learning_rate=0.02, adamw_learning_rate=3e-3),
    Phase(seed=1000, traces=12000, practice=0.5),
    Phase(
        seed=2000,
        traces=10000,
        practice=0.6,
        practice_kinds=(*KINDS, *("author_age", "town_age") * 5),
    ),
)
"""First the strategies; then the same with practice at copying years; then at subtracting them."""


def make_warm_start(output: Path, seed: int, threads: int) -> None:
    """Write the starting policy to ``output``.

    Args:
        output: folder; a README in it is kept.
        seed: of tokenizer, weights, training worlds and demonstrations.
        threads: torch threads.

    Raises:
        RunError: the training process failed; its last lines are on the terminal.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lzero-warmstart-") as folder:
        scratch = Path(folder)
        parameters = write_initial_model(scratch / "0", train_tokenizer(seed), seed)
        log.info("wrote initial model parameters=%d", parameters)
        for number, phase in enumerate(PHASES):
            traces = scratch / f"{number}.jsonl"
            write_traces(
                traces,
                seed + phase.seed,
                phase.traces,
                practice=phase.practice,
                practice_kinds=phase.practice_kinds,
            )
            log.info("wrote traces phase=%d count=%d", number, phase.traces)
            trained = output if phase is PHASES[-1] else scratch / str(number + 1)
            _train(scratch / str(number), traces, trained, phase, seed, threads)
        untie(output)
    log.info("finished warm start path=%s seconds=%.0f", output, time.monotonic() - began)


def _train(
    initial: Path, traces: Path, output: Path, phase: Phase, seed: int, threads: int
) -> None:
    options = {
        "model": initial,
        "traces": traces,
        "output": output,
        "seed": seed,
        "threads": threads,
        "muon-learning-rate": phase.muon_learning_rate,
        "adamw-learning-rate": phase.adamw_learning_rate,
    }
    listed = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
    environment = module_environment({**os.environ, **quiet})
    command = child_command("learner.sft.main", *listed)
    code = subprocess.run(command, env=environment, check=False).returncode
    if code != 0:
        raise RunError(f"learner.sft.main ended with exit code {code}; its messages are above")


def main() -> None:
    """Entry point of ``python -m launch.data.warmstart``."""
    configure_logging("warm-start", force=False)
    parser = argparse.ArgumentParser(description="Make the shipped starting policy again.")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    make_warm_start(options.output, options.seed, options.threads)


if __name__ == "__main__":
    main()
