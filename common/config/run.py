"""What a run is called, how long it is, and what it is about."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from common.config.checks import require
from common.config.names import name_fault
from common.config.ranges import DAY_S, FIXED, MANY, Range, Section


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Section):
    """What the run is called and how long it is."""

    name: str = "run"
    """Folder of the run below ``folder``."""
    folder: str = "runs"
    """Where runs are kept."""
    seed: Annotated[int, Range("seed", least=0, most=MANY)] = 0
    """Reproduces tasks, their order and initial weights; not sampling under real concurrency."""
    steps: Annotated[int, Range("steps", least=1, most=MANY)] = 40
    """Optimizer steps, one per batch."""
    grace_s: Annotated[float, Range("s", least=1, most=DAY_S)] = 30.0
    """From SIGTERM or SIGUSR1 to the end: up to half of it for actors to finish what they hold, the
    rest for a checkpoint; less than what the scheduler gives before it kills."""
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    """Weights & Biases mode; metrics go to JSON lines always. The project is WANDB_PROJECT of the
    environment, or l-zero."""
    trajectories_mib: Annotated[int, Range("MiB", least=1, most=1 << 30), FIXED] = 256
    """Size limit of the trajectory store; the oldest parts go first."""
    journal: Literal["sync", "write"] = "sync"
    """What was accepted counts as kept when the disk has it (``sync``), or already when the
    operating system has (``write``), which a loss of power can undo."""
    keep_journal: bool = False
    """Keep the journal of the whole run; else only what the kept checkpoints need stays."""
    profile_steps: Annotated[int, Range("steps", least=0, most=1000), FIXED] = 0
    """Steps of which rank 0 of the learner writes a torch profiler trace into the run's folder
    ``profiles``, from the third of the process on; of ``lzero train --profile``."""

    def check(self) -> None:
        """The name can be a folder's, and there is a place for it."""
        require(
            bool(self.folder.strip()),
            "run.folder must be the path of a folder, got ''; 'runs' is the default, '.' is here",
        )
        require(
            not name_fault(self.name),
            f"run.name must be {name_fault(self.name)}, got {self.name!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Lora(Section):
    """Low-rank adapters; with ``rank`` 0 the whole model is trained."""

    AT: ClassVar[str] = "model.lora"

    rank: Annotated[int, Range("dimensions", least=0, most=65536)] = 0
    """Inner dimension of each adapter; 0 for none."""
    alpha: Annotated[float, Range("factor", above=0, most=1e6)] = 32.0
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
class Model(Section):
    """The policy: any Hugging Face folder of the Qwen2.5, Qwen3 or Llama families."""

    path: str = "launch/presets/warmstart"
    """Hugging Face folder with weights and tokenizer."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Compute type of learner and policy server; ``auto``: bfloat16 where the machine computes
    faster in it, else float32. A run keeps what it chose."""
    max_context: Annotated[int, Range("tokens", least=16, most=1 << 24)] = 512
    """Longest segment in tokens, prompt and answer together."""
    lora: Lora = field(default_factory=Lora)
    """Train adapters instead of the whole model."""

    @property
    def compute_dtype(self) -> Literal["float32", "bfloat16"]:
        """``dtype``; float32, which every machine computes in, as long as nobody has chosen."""
        return "float32" if self.dtype == "auto" else self.dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class World(Section):
    """The generated encyclopedia; used when ``enabled``, else ``tasks`` names the user's files."""

    enabled: bool = False
    """Generate tasks and corpora from ``seed`` before the run."""
    seed: Annotated[int, Range("seed", least=0, most=MANY - 1)] = 0
    """Which training world; the held-out one is that of the next number."""
    train_tasks: Annotated[int, Range("questions", least=1, most=10_000_000)] = 20000
    """Training questions generated."""
    more_wordings: bool = False
    """Training, and the demonstrations of ``lzero real``, ask a kind of question in five or six
    wordings instead of two or three; held-out questions do not."""

    @property
    def heldout_seed(self) -> int:
        """Which held-out world; its entities never occur in any training world."""
        return self.seed + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSource(Section):
    """One of several task files that training draws from; ``lzero tasks mix`` makes one of them."""

    AT: ClassVar[str] = "tasks.sources"

    name: str
    """Of its success in the metrics."""
    path: str
    """Task file; see docs/tasks.md for the format."""
    weight: Annotated[float, Range("parts", above=0, most=1e9)] = 1.0
    """Its part of the groups: two sources of weights 3 and 1 give three groups to one."""

    def check(self) -> None:
        """It can be told apart and read."""
        fault = name_fault(self.name)
        require(not fault, f"tasks.sources: name must be {fault}, got {self.name!r}")
        require(
            bool(self.path),
            f"tasks.sources '{self.name}': path must be that of a task file, got ''",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Tasks(Section):
    """Task files (JSON lines) and the SQLite corpora that ``search`` reads."""

    train: str = ""
    """Training tasks; see docs/tasks.md for the format. Empty where there are ``sources``."""
    sources: tuple[TaskSource, ...] = ()
    """Several files of training tasks, one table ``[[tasks.sources]]`` each, drawn from in the
    ratio of their weights (docs/data.md)."""
    train_corpus: str = ""
    """Corpus of tasks whose ``corpus`` is ``train``, made by ``lzero index``."""
    kinds: tuple[str, ...] = ()
    """Task types of your own that tasks may name, each ``package.module:name``: only these are
    imported (docs/extending.md)."""
    file_folders: tuple[str, ...] = ()
    """Folders from which tasks may bring files, beside the folder of their task file."""

    def check(self) -> None:
        """Kinds and folders are names, and tasks come from one file or from several."""
        require(
            not (self.train and self.sources),
            f"tasks.train ({self.train}) and [[tasks.sources]] exclude each other; make a source "
            "of the file, too",
        )
        names = [source.name for source in self.sources]
        for name in names:
            require(names.count(name) == 1, f"tasks.sources: two are called '{name}'")
        for kind in self.kinds:
            require(
                ":" in kind, f"tasks.kinds must name types as package.module:name, got {kind!r}"
            )
        for folder in self.file_folders:
            require(bool(folder), "tasks.file_folders must name folders, got an empty one")
