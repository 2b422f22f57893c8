"""What a run is called, how long it is, and what it is about."""

from dataclasses import dataclass, field
from typing import Literal

from common.config.checks import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What the run is called and how long it is."""

    name: str = "run"
    """Folder of the run below ``folder``."""
    folder: str = "runs"
    """Where runs are kept."""
    seed: int = 0
    """Reproduces tasks, their order and initial weights; not sampling under real concurrency."""
    steps: int = 40
    """Optimizer steps, one per batch."""
    log_every: int = 1
    """Steps between two lines in ``metrics.jsonl``."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases mode; metrics go to JSON lines always."""
    wandb_project: str = "l-zero"
    trajectories_mib: int = 256
    """Size limit of the trajectory store; the oldest parts go first."""
    profile_steps: int = 0
    """Steps of which rank 0 of the learner writes a torch profiler trace into the run's folder
    ``profiles``, from the third of the process on; ``lzero train --profile`` sets it to 2."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.steps >= 1, f"run.steps must be at least 1, got {self.steps}")
        require(
            self.profile_steps >= 0,
            f"run.profile_steps must be at least 0, got {self.profile_steps}",
        )
        require(
            "/" not in self.name and bool(self.name),
            f"run.name must be a plain folder name, got {self.name!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora:
    """Low-rank adapters; with ``rank`` 0 the whole model is trained."""

    rank: int = 0
    alpha: float = 32.0
    """The adapters' output is scaled by ``alpha / rank``."""
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Last names of the linear layers that get one; ``all-linear`` for every one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """The policy: any Hugging Face folder of the Qwen2.5, Qwen3 or Llama families."""

    path: str = "launch/presets/warmstart"
    """Hugging Face folder with weights and tokenizer."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type of learner and policy server."""
    max_context: int = 512
    """Longest segment in tokens, prompt and answer together."""
    lora: Lora = field(default_factory=Lora)
    """Train adapters instead of the whole model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The generated encyclopedia; used when ``enabled``, else ``tasks`` names the user's files."""

    enabled: bool = False
    """Generate tasks and corpora from ``seed`` before the run."""
    seed: int = 0
    """Which training world."""
    heldout_seed: int = 1
    """Which held-out world; its entities never occur in any training world."""
    train_tasks: int = 20000
    """Training questions generated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks:
    """Task files (JSON lines) and the SQLite corpora that ``search`` reads."""

    train: str = ""
    """Training tasks; see docs/tasks.md for the format."""
    train_corpus: str = ""
    """Corpus of tasks whose ``corpus`` is ``train``, made by ``lzero index``."""
    heldout: str = ""
    """Held-out tasks; empty to run without evaluation."""
    heldout_corpus: str = ""
    """Corpus of tasks whose ``corpus`` is ``heldout``; empty to use ``train_corpus``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Held-out evaluation before, during and after training."""

    per_family: int = 400
    """Held-out questions per family (one-hop, two-hop) before and after, sampled."""
    greedy_per_family: int = 200
    """The same at temperature 0."""
    control: int = 200
    """Questions per family with search switched off, after training."""
    during_every: int = 10
    """Steps between short evaluations while training; 0 for none."""
    during_per_family: int = 32
    seed: int = 0
    """Order of the held-out questions."""
