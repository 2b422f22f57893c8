"""What the learner minimises, on how many devices, and how often it saves."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from common.config.checks import require


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
            require(value >= 1, f"learner.{name} must be at least 1, got {value}")
        require(
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
            require(
                self.name in owners or getattr(self, key) == default,
                f"objective.{key} belongs to {' and '.join(owners)}; with objective.name = "
                f"'{self.name}', which bounds the ratio in its own way, it would correct twice or "
                "do nothing: leave it out",
            )
        require(
            0 <= self.discount <= 1, f"objective.discount must be in [0, 1], got {self.discount}"
        )
        require(
            self.advantage != "gae" or self.name in ("token_tis", "decoupled_ppo"),
            "objective.advantage = 'gae' gives every token an advantage of its own, which only "
            f"objectives by token can use: 'token_tis' or 'decoupled_ppo', got '{self.name}'",
        )
        for key in ("kl_reference", "kl_behaviour"):
            value = getattr(self, key)
            require(value >= 0, f"objective.{key} must be at least 0, got {value}")


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
