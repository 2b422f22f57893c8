"""The configuration of a run: what each key means, its unit and its default.

A run is described by a TOML file with one table per section below; ``common.config_file`` reads
and writes it. Everything is frozen; the resolved configuration is saved with the run as JSON.
"""

from dataclasses import dataclass, field

from common.config.agent import Agent, Kernel, Rewards
from common.config.checks import require
from common.config.evaluation import Evaluation, EvaluationSuite
from common.config.learning import MISMATCH_TOLERANCES, Learner
from common.config.objective import Apg, DecoupledPpo, Gae, Gspo, Objective, TokenTis, Topr
from common.config.processes import Actors, PolicyServer, Transport
from common.config.run import Lora, Model, Run, Tasks, TaskSource, World
from common.config.tools import (
    Files,
    McpServer,
    Pages,
    Search,
    Service,
    Tools,
    Vision,
    Web,
)

__all__ = [
    "Actors",
    "Agent",
    "Apg",
    "Config",
    "DecoupledPpo",
    "Evaluation",
    "EvaluationSuite",
    "Files",
    "Gae",
    "Gspo",
    "Kernel",
    "Learner",
    "Lora",
    "McpServer",
    "Model",
    "Objective",
    "Pages",
    "PolicyServer",
    "Rewards",
    "Run",
    "Search",
    "Service",
    "TaskSource",
    "Tasks",
    "TokenTis",
    "Tools",
    "Topr",
    "Transport",
    "Vision",
    "Web",
    "World",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A whole run."""

    run: Run = field(default_factory=Run)
    model: Model = field(default_factory=Model)
    world: World = field(default_factory=World)
    tasks: Tasks = field(default_factory=Tasks)
    tools: Tools = field(default_factory=Tools)
    services: dict[str, Service] = field(default_factory=dict)
    """Services outside, one table ``[services.NAME]`` each."""
    policy_server: PolicyServer = field(default_factory=PolicyServer)
    kernel: Kernel = field(default_factory=Kernel)
    agent: Agent = field(default_factory=Agent)
    rewards: Rewards = field(default_factory=Rewards)
    actors: Actors = field(default_factory=Actors)
    transport: Transport = field(default_factory=Transport)
    learner: Learner = field(default_factory=Learner)
    objective: Objective = field(default_factory=Objective)
    evaluation: Evaluation = field(default_factory=Evaluation)

    @property
    def lease_timeout_s(self) -> float:
        """How long an actor may run a lease: an episode, then starting, scoring and sending."""
        return self.agent.episode_timeout_s + self.transport.lease_grace_s

    @property
    def judge_wait_s(self) -> float:
        """How long an episode may wait for a free judge: what the grace leaves beside scoring.

        At least a second, for uses that check no leases.
        """
        return max(self.transport.lease_grace_s - self.rewards.timeout_s, 1.0)

    @property
    def mismatch_tolerance(self) -> float:
        """``learner.mismatch_tolerance``, or what suits the compute type, nats."""
        own = self.learner.mismatch_tolerance
        return own or MISMATCH_TOLERANCES[self.model.compute_dtype]

    def __post_init__(self) -> None:
        """Check what spans two sections and holds for any use.

        Raises:
            ConfigError: names both keys and their values.
        """
        context, learner = self.model.max_context, self.learner
        require(
            learner.pack_tokens >= context,
            f"learner.pack_tokens ({learner.pack_tokens}) must be at least "
            f"model.max_context ({context}), or a full segment fits no pack",
        )
        require(
            self.agent.max_action_tokens < context,
            f"agent.max_action_tokens ({self.agent.max_action_tokens}) must be below "
            f"model.max_context ({context})",
        )
        require(
            self.objective.advantage != "gae" or learner.context_parallel == 1,
            "objective.advantage = 'gae' does not work with learner.context_parallel above 1 yet",
        )
        for tool in ("search", "pages", "vision"):
            name = getattr(self.tools, tool).service
            require(
                not name or name in self.services,
                f"tools.{tool}.service is '{name}', but there is no [services.{name}] "
                f"(there are: {', '.join(sorted(self.services)) or 'none'})",
            )

        judge = self.rewards.judge
        require(
            not judge or (judge in self.services and bool(self.services[judge].base_url)),
            f"rewards.judge is '{judge}', but there is no [services.{judge}] with a base_url "
            f"(there are: {', '.join(sorted(self.services)) or 'none'})",
        )

    def service(self, name: str) -> Service:
        """The service of that name; for the empty name one that leaves all to the provider."""
        return self.services[name] if name else Service()
