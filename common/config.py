"""The configuration of a run: what each key means, its unit and its default.

A run is described by a TOML file with one table per section below; ``common.config_file`` reads
and writes it. Everything is frozen; the resolved configuration is saved with the run as JSON.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Literal


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


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
        _require(self.steps >= 1, f"run.steps must be at least 1, got {self.steps}")
        _require(
            self.profile_steps >= 0,
            f"run.profile_steps must be at least 0, got {self.profile_steps}",
        )
        _require(
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
    """Last names of the linear layers that get one."""


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
class Search:
    """The ``search`` tool: a local index (SQLite FTS5, BM25) or a web search service."""

    provider: Literal["local", "serper", "exa", "firecrawl"] = "local"
    match: Literal["all", "any"] = "all"
    """``local``: whether a page must hold all words of a query or any of them."""
    results: int = 1
    """Pages returned, best first."""
    max_characters: int = 1000
    """Longest text returned for one page."""
    disabled: bool = False
    """Answer every query with "No results." (a control experiment)."""
    base_url: str = ""
    """Web providers: another address of the service; empty for its public one."""
    api_key_env: str = ""
    """Web providers: environment variable of the actor with the key; empty for the provider's
    usual one, e.g. SERPER_API_KEY."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("results", "max_characters"):
            value = getattr(self, name)
            _require(value >= 1, f"search.{name} must be at least 1, got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Web:
    """How tools reach the network: one client for all of them, on the host."""

    timeout_s: float = 20.0
    """One attempt."""
    attempts: int = 3
    """Tries per request, with exponential backoff, on time-outs, 429 and 5xx."""
    requests_per_s: float = 5.0
    """Rate limit per host and actor process; 0 for none."""
    max_response_mib: int = 8
    cache: str = ""
    """Folder of the disk cache; empty for none."""
    cache_mode: Literal["fill", "record", "replay"] = "fill"
    """``fill``: use what is there, fetch and keep the rest; ``record``: always fetch and keep;
    ``replay``: never touch the network, a missing entry is an error in the cell."""
    blocked_domains: tuple[str, ...] = ()
    """Never fetched and never shown in results, with their subdomains (data set mirrors)."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("attempts", "max_response_mib"):
            value = getattr(self, name)
            _require(value >= 1, f"web.{name} must be at least 1, got {value}")
        _require(self.timeout_s > 0, f"web.timeout_s must be above 0, got {self.timeout_s}")
        _require(
            self.requests_per_s >= 0,
            f"web.requests_per_s must be at least 0, got {self.requests_per_s}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pages:
    """The ``read_page`` tool."""

    provider: Literal["local", "jina"] = "local"
    """``local``: fetch and extract the article here; ``jina``: the Jina Reader service."""
    allowed_domains: tuple[str, ...] = ()
    """``local``: only these domains and their subdomains may be read; "*" allows any public
    address."""
    max_characters: int = 20000
    """Longest part of a page that one call returns."""
    base_url: str = ""
    """``jina``: another address of the service; empty for its public one."""
    api_key_env: str = ""
    """``jina``: environment variable of the actor with the key; empty for JINA_API_KEY."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vision:
    """The ``visual_qa`` tool: an OpenAI-compatible vision language model."""

    base_url: str = ""
    """Address of the server with its version, e.g. ``http://127.0.0.1:8000/v1``."""
    model: str = ""
    """Name of the model there."""
    api_key_env: str = "VISION_API_KEY"
    """Environment variable of the actor with the key; empty for a server that needs none."""
    max_tokens: int = 512
    """Longest answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The ``inspect_file`` tool, for the files attached to a task."""

    max_characters: int = 20000
    """Longest part of a file that one call returns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class McpServer:
    """A Model Context Protocol server: a command to start, or an address to connect to."""

    command: tuple[str, ...] = ()
    """Program and arguments; speaks over its standard streams."""
    environment: tuple[str, ...] = ()
    """Names of variables passed on to the program; of the actor's others it sees only HOME,
    LOGNAME, PATH, SHELL, TERM and USER."""
    url: str = ""
    """Address of a server that speaks streamable HTTP."""
    api_key_env: str = ""
    """``url``: environment variable of the actor with a bearer token; empty for none."""
    start_timeout_s: float = 60.0
    """How long it may take to start and to list its tools."""
    timeout_s: float = 30.0
    """How long one call may take."""

    def __post_init__(self) -> None:
        """Check that there is exactly one way to reach it."""
        _require(
            bool(self.command) != bool(self.url),
            "an MCP server needs either command or url, got " + ("both" if self.url else "neither"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mcp:
    """MCP servers by name; tool ``mcp.NAME`` in ``agent.tools`` offers all tools of one."""

    servers: dict[str, McpServer] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyServer:
    """The vLLM server; bound to loopback."""

    port: int = 0
    """TCP port; 0 takes a free one."""
    max_sequences: int = 128
    """Sequences generated at once."""
    threads: int = 1
    """OpenMP threads of the CPU build."""
    memory_gib: float = 1.0
    """KV cache of the CPU build, GiB; on a GPU ``gpu_memory_fraction`` decides."""
    gpu_memory_fraction: float = 0.85
    tensor_parallel: int = 1
    ready_timeout_s: float = 240.0
    """How long the server may take to load the model and answer."""
    request_timeout_s: float = 120.0
    """How long one generation request may take before it is retried."""
    request_attempts: int = 5
    """Tries per request, with exponential backoff, before the episode is dropped."""


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
    """Output kept per cell; the rest is counted and dropped."""
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
    """Longest observation put into the context."""
    max_output_bytes: int = 1 << 20
    """Output of all cells of an episode; beyond it nothing more is shown."""
    max_tool_calls: int = 64
    """Tool calls per episode; further calls raise in the cell."""
    tool_timeout_s: float = 30.0
    """Wall time of one tool call; beyond it TimeoutError is raised in the cell."""
    temperature: float = 1.0
    """Sampling temperature of training episodes."""
    episode_timeout_s: float = 120.0
    """Wall time of an episode; a model-caused overrun scores 0 and is kept."""
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
            _require(value >= 1, f"agent.{name} must be at least 1, got {value}")
        _require(
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

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(
            self.length_tokens >= 1,
            f"rewards.length_tokens must be at least 1, got {self.length_tokens}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Actors:
    """The rollout processes."""

    processes: int = 1
    episodes: int = 96
    """Episodes in flight per process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transport:
    """Actor to coordinator: ZeroMQ on loopback."""

    port: int = 0
    """TCP port of the coordinator; 0 takes a free one."""
    resend_s: float = 10.0
    """An unacknowledged trajectory is sent again after this long."""
    heartbeat_s: float = 2.0
    silence_s: float = 60.0
    """An actor silent for this long loses its leases."""
    buffer_mib: int = 256
    """Trajectories the learner keeps before it stops handing out tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """Batches, optimizer, staleness and checkpoints."""

    ranks: int = 1
    """FSDP processes."""
    threads: int = 1
    """Torch threads per rank on CPU."""
    groups: int = 16
    """Groups in a batch."""
    group_size: int = 8
    """Trajectories of the same task, compared with each other."""
    max_staleness: int = 3
    """Versions an action may lag behind the learner; 0 is synchronous training."""
    pack_tokens: int = 4096
    """Token budget of one packed micro-batch; at least ``model.max_context``."""
    updates_per_batch: int = 1
    """Optimizer steps per batch, each on its own share of the groups."""
    filter_groups: Literal["none", "no_signal"] = "none"
    """``no_signal``: groups in which all returns are equal are replaced by other groups before a
    batch is taken."""
    filter_patience: int = 4
    """Batches' worth of groups without signal in a row after which the batch is taken as it is."""
    group_timeout_s: float = 0.0
    """A group with at least half of its members is used as it is this long after its first
    member arrived; 0 waits for all."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again: nothing; all but attention; every layer."""
    cpu_offload: bool = False
    """Keep weights, gradients and optimizer state on the CPU between uses."""
    compile: bool = False
    """torch.compile every layer."""
    replicas: int = 1
    """Copies of the sharded model (HSDP); divides ``ranks``."""
    context_parallel: int = 1
    """Ranks over which the tokens of a pack are split; divides ``ranks``."""
    learning_rate: float = 1e-6
    warmup_steps: int = 5
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    checkpoint_every: int = 10
    """Steps between checkpoints; the last step is always saved."""
    checkpoint_async: bool = True
    """Write checkpoints beside the training steps, from a copy."""
    checkpoints_kept: int = 2
    verify_updates: int = 5
    """The first updates after which server and learner log-probabilities are compared."""
    verify_every: int = 10
    """... and then every so many updates."""
    mismatch_tolerance: float = 1e-3
    """Largest mean absolute log-probability difference at staleness 0 that is tolerated."""
    skipped_steps: int = 5
    """Steps in a row with a gradient that is not finite after which the run stops."""
    ess_warning: float = 0.5
    """Effective sample size below which a step is logged as a warning."""
    mismatch_warning: float = 5e-3
    """k3 of fresh tokens (learner against policy server) above which a warning is logged."""
    batch_timeout_s: float = 300.0
    """Longest wait for a full batch before the run stops with a named cause."""

    def __post_init__(self) -> None:
        """Check ranges."""
        counts = ("ranks", "groups", "group_size", "pack_tokens", "checkpoint_every")
        for name in (*counts, "updates_per_batch", "replicas", "context_parallel"):
            value = getattr(self, name)
            _require(value >= 1, f"learner.{name} must be at least 1, got {value}")
        _require(
            self.max_staleness >= 0,
            f"learner.max_staleness must be at least 0, got {self.max_staleness}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """What the learner minimises: an objective, how returns become advantages, and penalties.

    The formulas are in ``learner/objectives`` and ``learner/advantages.py``.
    """

    name: Literal["apg", "topr", "token_tis", "gspo", "decoupled_ppo"] = "apg"
    """``apg``: action-level importance weights, truncated, with a sign-aware trust region;
    ``topr``: tapered weights for negative advantages; ``token_tis``: token-level weights;
    ``gspo``: geometric mean of an action, clipped; ``decoupled_ppo``: PPO around the weights at
    the start of the batch, for several updates per batch."""
    weight_limits_positive: tuple[float, float] = (0.0, 2.0)
    """``apg``: truncation of the weight where the advantage is not negative."""
    weight_limits_negative: tuple[float, float] = (0.0, 1.0)
    """``apg``: truncation of the weight where the advantage is negative."""
    kappa: float = 0.15
    """``apg``, ``topr``: |sum of log ratios| / sqrt(tokens) beyond which an action is masked."""
    t_ref: float = 512.0
    """``apg``: actions of more tokens have their log ratio tempered by sqrt(t_ref / T)."""
    token_veto: float = 1e4
    """All: an action with a token ratio beyond this (either way) is masked."""
    token_cap: float = 4.0
    """``token_tis``: largest weight of a token."""
    token_band: tuple[float, float] = (0.0, inf)
    """``token_tis``: tokens with a ratio outside get no gradient."""
    gspo_clip: tuple[float, float] = (3e-3, 4e-3)
    """``gspo``: how far below and above 1 the ratio counts."""
    ppo_clip: float = 0.2
    """``decoupled_ppo``: how far from 1 the ratio to the proximal weights counts."""
    behaviour_cap: float = 5.0
    """``decoupled_ppo``: tokens with a larger ratio of proximal to behaviour are masked."""
    loss_norm: Literal["tokens", "actions"] = "tokens"
    """Whether each token or each action counts the same; ``gspo`` is always by actions."""
    advantage: Literal["group_loo", "reinforce_pp", "gae"] = "group_loo"
    """Returns against the other members of the group; whitened over the batch; or generalised
    advantages with a critic, on steps and on tokens (section ``critic``)."""
    discount: float = 0.95
    """Step discount of returns."""
    advantage_clip: float = 5.0
    """Largest absolute advantage."""
    kl_reference: float = 0.0
    """Weight of the KL divergence to the model that the run started from, which is then kept in
    memory as a second, frozen model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k2"
    """Of ``kl_reference``; learner/objectives/penalties.py says what each is worth as a loss."""
    kl_behaviour: float = 0.0
    """Weight of the squared log ratio to the behaviour policy; needs no further model."""
    entropy: float = 0.0
    """Weight of the mean entropy of the token distributions, a bonus."""

    def __post_init__(self) -> None:
        """Check ranges, and that no deviation is corrected twice."""
        for key, owners in _OBJECTIVE_KEYS.items():
            default = type(self).__dataclass_fields__[key].default
            _require(
                self.name in owners or getattr(self, key) == default,
                f"objective.{key} belongs to {' and '.join(owners)}; with objective.name = "
                f"'{self.name}', which bounds the ratio in its own way, it would correct twice or "
                "do nothing: leave it out",
            )
        _require(
            0 <= self.discount <= 1, f"objective.discount must be in [0, 1], got {self.discount}"
        )
        _require(
            self.advantage != "gae" or self.name in ("token_tis", "decoupled_ppo"),
            "objective.advantage = 'gae' gives every token an advantage of its own, which only "
            f"objectives by token can use: 'token_tis' or 'decoupled_ppo', got '{self.name}'",
        )
        for key in ("kl_reference", "kl_behaviour"):
            value = getattr(self, key)
            _require(value >= 0, f"objective.{key} must be at least 0, got {value}")


_OBJECTIVE_KEYS = {
    "weight_limits_positive": ("apg",),
    "weight_limits_negative": ("apg",),
    "kappa": ("apg", "topr"),
    "t_ref": ("apg",),
    "token_cap": ("token_tis",),
    "token_band": ("token_tis",),
    "gspo_clip": ("gspo",),
    "ppo_clip": ("decoupled_ppo",),
    "behaviour_cap": ("decoupled_ppo",),
}
"""Which objectives read a key; any other with it set is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Critic:
    """The value model of ``objective.advantage = "gae"``: the policy's architecture, one output."""

    learning_rate: float = 1e-5
    value_clip: float = 0.5
    """How far a value may move from the one at the start of the batch."""
    step_decay: float = 0.95
    """Lambda over steps; the discount over steps is ``objective.discount``."""
    token_discount: float = 0.99
    token_decay: float = 0.99
    """Discount and lambda over the tokens of one action."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A whole run."""

    run: Run = field(default_factory=Run)
    model: Model = field(default_factory=Model)
    world: World = field(default_factory=World)
    tasks: Tasks = field(default_factory=Tasks)
    search: Search = field(default_factory=Search)
    web: Web = field(default_factory=Web)
    pages: Pages = field(default_factory=Pages)
    vision: Vision = field(default_factory=Vision)
    files: Files = field(default_factory=Files)
    mcp: Mcp = field(default_factory=Mcp)
    policy_server: PolicyServer = field(default_factory=PolicyServer)
    sandbox: Sandbox = field(default_factory=Sandbox)
    kernel: Kernel = field(default_factory=Kernel)
    agent: Agent = field(default_factory=Agent)
    rewards: Rewards = field(default_factory=Rewards)
    actors: Actors = field(default_factory=Actors)
    transport: Transport = field(default_factory=Transport)
    learner: Learner = field(default_factory=Learner)
    objective: Objective = field(default_factory=Objective)
    critic: Critic = field(default_factory=Critic)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        """Check what spans two sections."""
        _require(
            self.learner.pack_tokens >= self.model.max_context,
            f"learner.pack_tokens ({self.learner.pack_tokens}) must be at least "
            f"model.max_context ({self.model.max_context}), or a full segment fits no pack",
        )
        _require(
            self.objective.advantage != "gae" or self.learner.context_parallel == 1,
            "objective.advantage = 'gae' does not work with learner.context_parallel above 1 yet",
        )
        _require(
            self.agent.max_action_tokens < self.model.max_context,
            f"agent.max_action_tokens ({self.agent.max_action_tokens}) must be below "
            f"model.max_context ({self.model.max_context})",
        )
