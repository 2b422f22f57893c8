"""One episode of the notebook agent: its kernel, its budgets and its rewards."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from common.config.checks import require
from common.config.ranges import DAY_S, FIXED, HOUR_S, MANY, Range, Section


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel(Section):
    """The notebook kernels and their limits."""

    launcher: Literal["auto", "forked", "cold", "jupyter"] = "auto"
    """``forked``: IPython shells forked from one zygote (level A); ``cold``: the same shell, one
    bubblewrap each (level B); ``jupyter``: any Jupyter kernel; ``auto``: the fastest of the first
    two that this machine allows."""
    minimum_level: Literal["A", "B", "unsafe"] = "B"
    """Refuse to start kernels that are isolated less; docs/sandbox.md describes the levels.
    ``unsafe``: where no sandbox can start, cells are plain processes of this user. Never for code
    that a model writes, unless the whole machine is disposable."""
    kernelspec: str = "lzero-sandbox"
    """Kernelspec of the ``jupyter`` launcher."""
    idle: Annotated[int, Range("kernels", least=0, most=65536)] = 8
    """Kernels kept ready."""
    cell_timeout_s: Annotated[float, Range("s", least=0.1, most=DAY_S)] = 10.0
    """Wall time of one cell before it is interrupted."""
    grace_s: Annotated[float, Range("s", above=0, most=HOUR_S), FIXED] = 1.0
    """Time an interrupted cell has before its kernel is killed."""
    start_timeout_s: Annotated[float, Range("s", least=1, most=HOUR_S), FIXED] = 60.0
    """Time a launcher, or one new kernel, has to be ready."""
    memory_mib: Annotated[int, Range("MiB", least=64, most=1 << 24)] = 1024
    """RLIMIT_DATA of each process in the sandbox."""
    sandbox_memory_mib: Annotated[int, Range("MiB", least=64, most=1 << 24)] = 2048
    """Memory of a whole sandbox, all processes and files together; its kernel is killed beyond."""
    cpu_s: Annotated[float, Range("s", least=0.1, most=365 * DAY_S)] = 120.0
    """CPU time of a whole kernel's life, seconds over all its processes; it is killed beyond."""
    workspace_mib: Annotated[int, Range("MiB", least=1, most=1 << 24)] = 64
    """Size of /workspace and of /tmp (RAM)."""
    inodes: Annotated[int, Range("files", least=64, most=MANY), FIXED] = 16384
    """Files and folders in each of them."""
    processes: Annotated[int, Range("processes", least=4, most=1 << 22), FIXED] = 64
    """RLIMIT_NPROC of the sandbox."""
    cgroup: str = ""
    """Folder of a cgroup v2 below which each kernel gets a group; empty for the actor's own, if
    that may be divided."""
    output_bytes: Annotated[int, Range("bytes", least=256, most=1 << 30), FIXED] = 65536
    """Output kept per cell, both ends of a longer one; the rest is counted and dropped."""
    first_uid: Annotated[int, Range("user id", least=1, most=(1 << 31) - 4)] = 1_900_000_000
    """As root: first user id of the host that a kernel may have. Each has one of its own; other
    users get them from /etc/subuid."""
    uids: Annotated[int, Range("user ids", least=3, most=1 << 20)] = 4096
    """How many of them; at least twice the kernels of all actors on the machine."""
    preload_numpy: bool = True
    """``forked``: numpy is there at once in every kernel, for 2 ms of CPU per kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent(Section):
    """One episode of the notebook agent."""

    mode: Literal["agent", "direct"] = "agent"
    """``agent``: think, write a cell, observe, until an answer; ``direct``: one answer, no cell and
    no tool."""
    tools: tuple[str, ...] = ("search", "submit_final_answer")
    """Tools of the notebook, by name: ``search``, ``read_page``, ``inspect_file``, ``visual_qa``,
    ``notepad``, ``planning``, ``context``, ``submit_final_answer``, ``mcp.NAME``, or
    ``package.module:name`` for one of your own (docs/extending.md)."""
    system_prompt: str = ""
    """Empty for none, ``notebook`` for the shipped template, else the path of a Jinja template."""
    max_steps: Annotated[int, Range("actions", least=1, most=100_000)] = 5
    """Actions per episode."""
    max_action_tokens: Annotated[int, Range("tokens", least=1, most=1 << 24)] = 64
    """Tokens sampled per action."""
    max_tokens: Annotated[int, Range("tokens", least=0, most=MANY)] = 0
    """Tokens sampled per episode; 0 for no limit."""
    max_observation_characters: Annotated[int, Range("characters", least=1, most=1 << 26)] = 400
    """Longest observation put into the context; of a longer one both ends."""
    max_output_bytes: Annotated[int, Range("bytes", least=256, most=1 << 40), FIXED] = 1 << 20
    """Output of all cells of an episode; beyond it nothing more is shown."""
    max_tool_calls: Annotated[int, Range("calls", least=0, most=MANY)] = 64
    """Tool calls per episode; further calls raise in the cell."""
    tool_timeout_s: Annotated[float, Range("s", above=0, most=DAY_S)] = 30.0
    """Wall time of one tool call; beyond it TimeoutError is raised in the cell."""
    temperature: Annotated[float, Range("temperature", least=0, most=100)] = 1.0
    """Sampling temperature of training episodes, at least 0.01; for an agent that only
    works, 0 takes the likeliest token."""
    episode_timeout_s: Annotated[float, Range("s", above=0, most=7 * DAY_S)] = 120.0
    """Wall time of an episode; after an overrun that its own cells caused it is kept, and its
    answer does not count."""
    accepted_actions: Literal["strict", "any"] = "strict"
    """``strict``: only the grammar of docs/agent.md; ``any``: also what plainly means an action,
    such as a fence of Python, as ``lzero agent`` always accepts. What is trained on are the tokens
    that were sampled, either way."""
    format_reminders: Annotated[int, Range("actions", least=0, most=100_000)] = 0
    """Actions per episode that do not parse and are answered with a reminder of the format; the
    next one ends the episode."""
    trim: Literal["none", "soft", "hard"] = "none"
    """When the context is full: end the episode; or go on in a new segment with task, notepad
    and the latest steps that fit into half of it (``soft``), or with task, notepad and the
    newest step only (``hard``)."""
    max_segments: Annotated[int, Range("segments", least=1, most=100_000)] = 8
    """Segments per episode; each trim, and each change through ``context``, starts one."""
    notepad_characters: Annotated[int, Range("characters", least=1, most=1 << 26), FIXED] = 4000
    """What the notepad holds."""

    def check(self) -> None:
        """An episode can end with an answer."""
        require(
            self.mode == "direct" or "submit_final_answer" in self.tools,
            "agent.tools must hold 'submit_final_answer', or no episode could end with an "
            f"answer; got {list(self.tools)!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewards(Section):
    """The reward as a weighted sum of named terms; docs/rewards.md."""

    preset: Literal["default", "l0_v1", "none"] = "default"
    """Weights to begin with: ours, the published system's, or none."""
    terms: dict[str, Annotated[float, Range("weight", least=-1e6, most=1e6)]] = field(
        default_factory=dict
    )
    """Weights by term name, over the preset's; ``package.module:name`` for one of your own."""
    process_requires_submission: bool = False
    """Terms about the way (``format``, ``code``) count only in episodes that submit an answer."""
    length_tokens: Annotated[int, Range("tokens", least=1, most=MANY)] = 4096
    """Tokens sampled in an episode at which the term ``length`` reaches 1."""
    timeout_s: Annotated[float, Range("s", above=0, most=HOUR_S)] = 10.0
    """Wall time that the terms and the task type may take for one episode; beyond it the episode
    fails and is dropped."""
    workers: Annotated[int, Range("processes", least=1, most=64)] = 16
    """Processes per actor in which terms and task types run, at most; each scores one episode at
    a time. They are started as they are needed."""
    judge: str = ""
    """Table ``[services.NAME]`` of the OpenAI-compatible server whose model grades tasks of kind
    ``judged``; its ``base_url`` ends in its version, e.g. ``http://HOST:8000/v1``."""
    judge_trains: bool = False
    """Let training tasks be of kind ``judged``, so that the model is trained on what another model
    says of it."""
