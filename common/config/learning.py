"""What the learner minimises, on how many devices, and how often it saves."""

from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal

from common.config.checks import require
from common.config.ranges import DAY_S, MANY, Range, Section, Share

COLLECTIVE_TIMEOUT_S = 1800.0
"""How long a rank waits for the others in a collective operation, seconds."""
COLLECTIVE_MARGIN_S = 60.0
"""What a step may take besides the wait for its batch before that, seconds."""

Ratios = tuple[
    Annotated[float, Range("ratio", least=0, most=1e6)],
    Annotated[float, Range("ratio", above=0, most=1e6, infinite=True)],
]
"""A lower and an upper limit of a ratio of probabilities."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner(Section):
    """Batches, optimizer, staleness and checkpoints."""

    ranks: Annotated[int, Range("processes", least=1, most=65536)] = 1
    """FSDP processes."""
    threads: Annotated[int, Range("threads", least=1, most=4096)] = 1
    """Torch threads per rank on CPU."""
    groups: Annotated[int, Range("groups", least=1, most=1 << 20)] = 16
    """Groups in a batch."""
    group_size: Annotated[int, Range("trajectories", least=1, most=1 << 16)] = 8
    """Trajectories of the same task, compared with each other."""
    max_staleness: Annotated[int, Range("versions", least=0, most=10_000)] = 3
    """Versions an action may lag behind the learner; 0 is synchronous training."""
    pack_tokens: Annotated[int, Range("tokens", least=16, most=MANY)] = 4096
    """Token budget of one packed micro-batch; at least ``model.max_context``."""
    updates_per_batch: Annotated[int, Range("optimizer steps", least=1, most=1 << 20)] = 1
    """Optimizer steps per batch, each on its own share of the groups."""
    filter_groups: Literal["none", "no_signal"] = "none"
    """``no_signal``: groups in which all returns are equal are replaced by other groups before a
    batch is taken."""
    filter_patience: Annotated[int, Range("batches", least=1, most=MANY)] = 4
    """Batches' worth of groups without signal in a row after which the batch is taken as it is."""
    group_timeout_s: Annotated[float, Range("s", least=0, most=7 * DAY_S)] = 0.0
    """A group with at least half of its members is used as it is this long after its first
    member arrived; 0 waits for all."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again: nothing; all but attention; every layer."""
    cpu_offload: bool = False
    """Keep weights, gradients and optimizer state on the CPU between uses."""
    compile: bool = False
    """torch.compile every layer."""
    replicas: Annotated[int, Range("copies", least=1, most=65536)] = 1
    """Copies of the sharded model (HSDP); divides ``ranks``."""
    context_parallel: Annotated[int, Range("processes", least=1, most=65536)] = 1
    """Ranks over which the tokens of a pack are split; divides ``ranks``."""
    learning_rate: Annotated[float, Range("per step", least=0, most=1)] = 1e-6
    """Of AdamW, after the warm-up."""
    warmup_steps: Annotated[int, Range("optimizer steps", least=0, most=MANY)] = 5
    """Steps over which the learning rate rises from 0."""
    betas: tuple[
        Annotated[float, Range("decay", least=0, below=1)],
        Annotated[float, Range("decay", least=0, below=1)],
    ] = (0.9, 0.95)
    """AdamW's decay per step of the mean gradient and of its square."""
    weight_decay: Annotated[float, Range("per step and learning rate", least=0, most=1000)] = 0.0
    """Share of a matrix that each step takes away, per unit of learning rate."""
    grad_clip: Annotated[float, Range("L2 norm", above=0, most=1e12, infinite=True)] = 1.0
    """Largest L2 norm of the gradient; a larger one is scaled down to it."""
    checkpoint_every: Annotated[int, Range("steps", least=1, most=MANY)] = 10
    """Steps between checkpoints; the last step is always saved."""
    checkpoint_async: bool = True
    """Write checkpoints beside the training steps, from a copy."""
    checkpoints_kept: Annotated[int, Range("checkpoints", least=1, most=MANY)] = 2
    """Newest checkpoints that are kept; older ones are removed."""
    verify_updates: Annotated[int, Range("updates", least=0, most=MANY)] = 5
    """The first updates after which server and learner log-probabilities are compared."""
    verify_every: Annotated[int, Range("updates", least=1, most=MANY)] = 10
    """... and then every so many updates."""
    mismatch_tolerance: Annotated[float, Range("nats", above=0, most=100)] = 1e-3
    """Largest mean absolute log-probability difference at staleness 0 that is tolerated."""
    skipped_steps: Annotated[int, Range("steps", least=1, most=MANY)] = 5
    """Steps in a row with a gradient that is not finite after which the run stops."""
    ess_warning: Share = 0.5
    """Effective sample size below which a step is logged as a warning."""
    mismatch_warning: Annotated[float, Range("nats", above=0, most=1000)] = 5e-3
    """k3 of fresh tokens (learner against policy server) above which a warning is logged."""
    batch_timeout_s: Annotated[float, Range("s", least=1, most=30 * DAY_S)] = 300.0
    """Longest wait for a full batch before the run stops with a named cause; with several ranks
    at most 1740 s."""

    def check(self) -> None:
        """Updates have groups of their own, and a collective outlasts the wait for a batch."""
        require(
            self.ranks == 1 or self.batch_timeout_s + COLLECTIVE_MARGIN_S <= COLLECTIVE_TIMEOUT_S,
            f"learner.batch_timeout_s ({self.batch_timeout_s:g}) must be at most "
            f"{COLLECTIVE_TIMEOUT_S - COLLECTIVE_MARGIN_S:g} with learner.ranks {self.ranks}: the "
            f"other ranks wait for the first in a collective, which gives up after "
            f"{COLLECTIVE_TIMEOUT_S:g} s",
        )
        require(
            self.updates_per_batch <= self.groups,
            f"learner.updates_per_batch ({self.updates_per_batch}) must be at most "
            f"learner.groups ({self.groups}): each update needs a group of its own",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective(Section):
    """What the learner minimises: an objective, how returns become advantages, and penalties.

    The formulas are in ``learner/objectives`` and ``learner/advantages.py``.
    """

    name: Literal["apg", "topr", "token_tis", "gspo", "decoupled_ppo"] = "apg"
    """``apg``: action-level importance weights, truncated, with a sign-aware trust region;
    ``topr``: tapered weights for negative advantages; ``token_tis``: token-level weights;
    ``gspo``: geometric mean of an action, clipped; ``decoupled_ppo``: PPO around the weights at
    the start of the batch, for several updates per batch."""
    weight_limits_positive: Ratios = (0.0, 2.0)
    """``apg``: truncation of the weight where the advantage is not negative."""
    weight_limits_negative: Ratios = (0.0, 1.0)
    """``apg``: truncation of the weight where the advantage is negative."""
    kappa: Annotated[
        float, Range("nats per square root of a token", least=0, most=1e6, infinite=True)
    ] = 0.15
    """``apg``, ``topr``: |sum of log ratios| / sqrt(tokens) beyond which an action is masked."""
    t_ref: Annotated[float, Range("tokens", least=1, most=1e9, infinite=True)] = 512.0
    """``apg``: actions of more tokens have their log ratio tempered by sqrt(t_ref / T)."""
    token_veto: Annotated[float, Range("ratio", above=1, most=1e300, infinite=True)] = 1e4
    """All: an action with a token ratio beyond this (either way) is masked."""
    token_cap: Annotated[float, Range("ratio", above=0, most=1e6, infinite=True)] = 4.0
    """``token_tis``: largest weight of a token."""
    token_band: Ratios = (0.0, inf)
    """``token_tis``: tokens with a ratio outside get no gradient."""
    gspo_clip: tuple[
        Annotated[float, Range("ratio", least=0, most=1)],
        Annotated[float, Range("ratio", least=0, most=1e6, infinite=True)],
    ] = (3e-3, 4e-3)
    """``gspo``: how far below and above 1 the ratio counts."""
    ppo_clip: Annotated[float, Range("ratio", above=0, below=1)] = 0.2
    """``decoupled_ppo``: how far from 1 the ratio to the proximal weights counts."""
    behaviour_cap: Annotated[float, Range("ratio", least=1, most=1e6, infinite=True)] = 5.0
    """``decoupled_ppo``: tokens with a larger ratio of proximal to behaviour are masked."""
    loss_norm: Literal["tokens", "actions"] = "tokens"
    """Whether each token or each action counts the same; ``gspo`` is always by actions."""
    advantage: Literal["group_loo", "reinforce_pp", "gae"] = "group_loo"
    """Returns against the other members of the group; whitened over the batch; or generalised
    advantages with a critic, on steps and on tokens (section ``critic``)."""
    discount: Share = 0.95
    """Step discount of returns."""
    advantage_clip: Annotated[float, Range("advantage", above=0, most=1e6, infinite=True)] = 5.0
    """Largest absolute advantage."""
    kl_reference: Annotated[float, Range("per nat", least=0, most=1e4)] = 0.0
    """Weight of the KL divergence to the model that the run started from, which is then kept in
    memory as a second, frozen model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k2"
    """Of ``kl_reference``; learner/objectives/penalties.py says what each is worth as a loss."""
    kl_behaviour: Annotated[float, Range("per nat squared", least=0, most=1e4)] = 0.0
    """Weight of the squared log ratio to the behaviour policy; needs no further model."""
    entropy: Annotated[float, Range("per nat", least=0, most=1e4)] = 0.0
    """Weight of the mean entropy of the token distributions, a bonus."""

    def check(self) -> None:
        """Limits are in order, and no deviation is corrected twice."""
        for key, owners in _OBJECTIVE_KEYS.items():
            default = type(self).__dataclass_fields__[key].default
            require(
                self.name in owners or getattr(self, key) == default,
                f"objective.{key} belongs to {' and '.join(owners)}; with objective.name = "
                f"'{self.name}', which bounds the ratio in its own way, it would correct twice or "
                "do nothing: leave it out",
            )
        for key in ("weight_limits_positive", "weight_limits_negative", "token_band"):
            low, high = getattr(self, key)
            require(low <= high, f"objective.{key} must be [low, high], got [{low:g}, {high:g}]")
        require(
            self.advantage != "gae" or self.name in ("token_tis", "decoupled_ppo"),
            "objective.advantage = 'gae' gives every token an advantage of its own, which only "
            f"objectives by token can use: 'token_tis' or 'decoupled_ppo', got '{self.name}'",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Critic(Section):
    """The value model of ``objective.advantage = "gae"``: the policy's architecture, one output."""

    learning_rate: Annotated[float, Range("per step", least=0, most=1)] = 1e-5
    """Of the critic's AdamW."""
    value_clip: Annotated[float, Range("return", above=0, most=1e6)] = 0.5
    """How far a value may move from the one at the start of the batch."""
    step_decay: Share = 0.95
    """Lambda over steps; the discount over steps is ``objective.discount``."""
    token_discount: Share = 0.99
    """Discount over the tokens of one action."""
    token_decay: Share = 0.99
    """Lambda over the tokens of one action."""


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
