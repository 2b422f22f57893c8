"""What the learner minimises: an objective, how returns become advantages, and penalties.

Each objective, and each kind of advantage with constants of its own, has a table of its own;
only the tables of what was chosen may say anything.
"""

from dataclasses import dataclass, field
from math import inf
from typing import Annotated, ClassVar, Literal

from common.config.checks import require
from common.config.ranges import FIXED, Range, Section, Share

Ratios = tuple[
    Annotated[float, Range("ratio", least=0, most=1e6)],
    Annotated[float, Range("ratio", above=0, most=1e6, infinite=True)],
]
"""A lower and an upper limit of a ratio of probabilities."""

Kappa = Annotated[float, Range("nats per square root of a token", least=0, most=1e6, infinite=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Apg(Section):
    """Action-level importance weights, truncated, with a sign-aware trust region."""

    AT: ClassVar[str] = "objective.apg"

    weight_limits_positive: Ratios = (0.0, 2.0)
    """Truncation of the weight where the advantage is not negative."""
    weight_limits_negative: Ratios = (0.0, 1.0)
    """Truncation of the weight where the advantage is negative."""
    kappa: Kappa = 0.15
    """|sum of log ratios| / sqrt(tokens) beyond which an action is masked."""
    t_ref: Annotated[float, Range("tokens", least=1, most=1e9, infinite=True)] = 512.0
    """Actions of more tokens have their log ratio tempered by sqrt(t_ref / T)."""

    def check(self) -> None:
        """Limits are in order."""
        for key in ("weight_limits_positive", "weight_limits_negative"):
            in_order(f"{self.AT}.{key}", getattr(self, key))


@dataclass(frozen=True, kw_only=True, slots=True)
class Topr(Section):
    """Tapered weights for negative advantages."""

    AT: ClassVar[str] = "objective.topr"

    kappa: Kappa = 0.15
    """|sum of log ratios| / sqrt(tokens) beyond which an action is masked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenTis(Section):
    """Token-level truncated importance weights."""

    AT: ClassVar[str] = "objective.token_tis"

    cap: Annotated[float, Range("ratio", above=0, most=1e6, infinite=True)] = 4.0
    """Largest weight of a token."""
    band: Ratios = (0.0, inf)
    """Tokens with a ratio outside get no gradient."""

    def check(self) -> None:
        """The band is in order."""
        in_order(f"{self.AT}.band", self.band)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gspo(Section):
    """Geometric mean of an action's ratios, clipped."""

    AT: ClassVar[str] = "objective.gspo"

    clip: tuple[
        Annotated[float, Range("ratio", least=0, most=1)],
        Annotated[float, Range("ratio", least=0, most=1e6, infinite=True)],
    ] = (3e-3, 4e-3)
    """How far below and above 1 the ratio counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoupledPpo(Section):
    """PPO around the weights at the start of the batch, for several updates per batch."""

    AT: ClassVar[str] = "objective.decoupled_ppo"

    clip: Annotated[float, Range("ratio", above=0, below=1)] = 0.2
    """How far from 1 the ratio to the proximal weights counts."""
    behaviour_cap: Annotated[float, Range("ratio", least=1, most=1e6, infinite=True)] = 5.0
    """Tokens with a larger ratio of proximal to behaviour are masked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gae(Section):
    """The value model of ``advantage = "gae"``: the policy's architecture, one output."""

    AT: ClassVar[str] = "objective.gae"

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective(Section):
    """What the learner minimises; the formulas are in docs/objectives.md."""

    name: Literal["apg", "topr", "token_tis", "gspo", "decoupled_ppo"] = "apg"
    """``apg``: action-level importance weights, truncated, with a sign-aware trust region;
    ``topr``: tapered weights for negative advantages; ``token_tis``: token-level weights;
    ``gspo``: geometric mean of an action, clipped; ``decoupled_ppo``: PPO around the weights at
    the start of the batch, for several updates per batch."""
    apg: Apg = field(default_factory=Apg)
    """Constants of ``apg``."""
    topr: Topr = field(default_factory=Topr)
    """Constants of ``topr``."""
    token_tis: TokenTis = field(default_factory=TokenTis)
    """Constants of ``token_tis``."""
    gspo: Gspo = field(default_factory=Gspo)
    """Constants of ``gspo``."""
    decoupled_ppo: DecoupledPpo = field(default_factory=DecoupledPpo)
    """Constants of ``decoupled_ppo``."""
    token_veto: Annotated[float, Range("ratio", above=1, most=1e300, infinite=True), FIXED] = 1e4
    """An action with a token ratio beyond this (either way) is masked."""
    loss_norm: Literal["tokens", "actions"] = "tokens"
    """Whether each token or each action counts the same; ``gspo`` is always by actions."""
    advantage: Literal["group_loo", "reinforce_pp", "gae"] = "group_loo"
    """Returns against the other members of the group; whitened over the batch; or generalised
    advantages with a critic, on steps and on tokens."""
    gae: Gae = field(default_factory=Gae)
    """Constants of ``gae`` and its critic."""
    discount: Share = 0.95
    """Step discount of returns."""
    advantage_clip: Annotated[
        float, Range("advantage", above=0, most=1e6, infinite=True), FIXED
    ] = 5.0
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
        """No deviation is corrected twice, and nothing is set that has no effect."""
        for table in (self.apg, self.topr, self.token_tis, self.gspo, self.decoupled_ppo):
            name = table.AT.rpartition(".")[2]
            require(
                name == self.name or table == type(table)(),
                f"[{table.AT}] is of objective.name = '{name}'; with '{self.name}', which bounds "
                "the ratio in its own way, it would do nothing: leave it out",
            )
        require(
            self.advantage == "gae" or self.gae == Gae(),
            "[objective.gae] is of objective.advantage = 'gae'; with "
            f"'{self.advantage}' it would do nothing: leave it out",
        )
        require(
            self.advantage != "gae" or self.name in ("token_tis", "decoupled_ppo"),
            "objective.advantage = 'gae' gives every token an advantage of its own, which only "
            f"objectives by token can use: 'token_tis' or 'decoupled_ppo', got '{self.name}'",
        )


def in_order(key: str, limits: tuple[float, float]) -> None:
    """Refuse a lower limit above the upper one."""
    low, high = limits
    require(low <= high, f"{key} must be [low, high], got [{low:g}, {high:g}]")
