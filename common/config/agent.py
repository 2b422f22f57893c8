"""One episode of the notebook agent: its kernel, its sandbox, its budgets and its rewards."""

from dataclasses import dataclass, field
from typing import Literal

from common.config.checks import require


@dataclass(frozen=True, kw_only=True, slots=True)
class Sandbox:
    """How little isolation is tolerated; docs/sandbox.md describes the levels."""

    minimum_level: Literal["A", "B"] = "B"
    """Refuse to start below this level."""
    unsafe_no_sandbox: bool = False
    """Run cells as plain processes of this user when no sandbox can start. Never for code that
    a model writes, unless the whole machine is disposable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """The notebook kernels and their limits."""

    launcher: Literal["auto", "forked", "cold", "jupyter"] = "auto"
    """``forked``: IPython shells forked from one zygote (level A); ``cold``: the same shell, one
    bubblewrap each (level B); ``jupyter``: any Jupyter kernel; ``auto``: the fastest of the first
    two that this machine allows."""
    kernelspec: str = "lzero-sandbox"
    """Kernelspec of the ``jupyter`` launcher."""
    idle: int = 8
    """Kernels kept ready."""
    cell_timeout_s: float = 10.0
    """Wall time of one cell before it is interrupted."""
    grace_s: float = 1.0
    """Time an interrupted cell has before its kernel is killed."""
    start_timeout_s: float = 60.0
    memory_mib: int = 1024
    """RLIMIT_DATA of each process in the sandbox."""
    sandbox_memory_mib: int = 2048
    """Memory of a whole sandbox, all processes and files together; its kernel is killed beyond."""
    cpu_s: float = 120.0
    """CPU time of a whole kernel's life, seconds over all its processes; it is killed beyond."""
    workspace_mib: int = 64
    """Size of /workspace and of /tmp (RAM)."""
    inodes: int = 16384
    """Files and folders in each of them."""
    processes: int = 64
    """RLIMIT_NPROC of the sandbox."""
    cgroup: str = ""
    """Folder of a cgroup v2 below which each kernel gets a group; empty for the actor's own, if
    that may be divided."""
    output_bytes: int = 65536
    """Output kept per cell, both ends of a longer one; the rest is counted and dropped."""
    preload_numpy: bool = True
    """``forked``: numpy is there at once in every kernel, for 2 ms of CPU per kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """One episode of the notebook agent."""

    mode: Literal["agent", "direct"] = "agent"
    """``agent``: think, write a cell, observe, until an answer; ``direct``: one answer, no cell."""
    tools: tuple[str, ...] = ("search", "submit_final_answer")
    """Tools of the notebook, by name: ``search``, ``read_page``, ``inspect_file``, ``visual_qa``,
    ``notepad``, ``planning``, ``context``, ``submit_final_answer``, ``mcp.NAME``, or
    ``package.module:name`` for one of your own (docs/extending.md)."""
    system_prompt: str = ""
    """Empty for none, ``notebook`` for the shipped template, else the path of a Jinja template."""
    max_steps: int = 5
    """Actions per episode."""
    max_action_tokens: int = 64
    """Tokens sampled per action."""
    max_tokens: int = 0
    """Tokens sampled per episode; 0 for no limit."""
    max_observation_characters: int = 400
    """Longest observation put into the context; of a longer one both ends."""
    max_output_bytes: int = 1 << 20
    """Output of all cells of an episode; beyond it nothing more is shown."""
    max_tool_calls: int = 64
    """Tool calls per episode; further calls raise in the cell."""
    tool_timeout_s: float = 30.0
    """Wall time of one tool call; beyond it TimeoutError is raised in the cell."""
    temperature: float = 1.0
    """Sampling temperature of training episodes."""
    episode_timeout_s: float = 120.0
    """Wall time of an episode, seconds; after an overrun that its own cells caused it is kept, and
    its answer does not count."""
    format_reminders: int = 0
    """Actions per episode that do not parse and are answered with a reminder of the format; the
    next one ends the episode."""
    trim: Literal["none", "soft", "hard"] = "none"
    """When the context is full: end the episode; or go on in a new segment with task, notepad
    and the latest steps that fit into half of it (``soft``), or with task, notepad and the
    newest step only (``hard``)."""
    max_segments: int = 8
    """Segments per episode; each trim, and each change through ``context``, starts one."""
    notepad_characters: int = 4000
    """What the notepad holds."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("max_steps", "max_action_tokens", "max_segments"):
            value = getattr(self, name)
            require(value >= 1, f"agent.{name} must be at least 1, got {value}")
        require(
            self.mode == "direct" or "submit_final_answer" in self.tools,
            "agent.tools must hold 'submit_final_answer', or no episode could end with an "
            f"answer; got {list(self.tools)!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewards:
    """The reward as a weighted sum of named terms; docs/rewards.md."""

    preset: Literal["default", "l0_v1", "none"] = "default"
    """Weights to begin with: ours, the published system's, or none."""
    terms: dict[str, float] = field(default_factory=dict)
    """Weights by term name, over the preset's; ``package.module:name`` for one of your own."""
    process_requires_submission: bool = False
    """Terms about the way (``format``, ``code``) count only in episodes that submit an answer."""
    length_tokens: int = 4096
    """Tokens sampled in an episode at which the term ``length`` reaches 1."""
    timeout_s: float = 10.0
    """Wall time that the terms and the task type may take for one episode, seconds; beyond it the
    episode fails and is dropped."""
    workers: int = 2
    """Processes per actor in which terms and task types run, at most; each scores one episode at
    a time."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.length_tokens >= 1,
            f"rewards.length_tokens must be at least 1, got {self.length_tokens}",
        )
        require(
            0 < self.timeout_s <= 3600,
            f"rewards.timeout_s must be above 0 and at most 3600 seconds, got {self.timeout_s}",
        )
        require(
            1 <= self.workers <= 64, f"rewards.workers must be from 1 to 64, got {self.workers}"
        )
