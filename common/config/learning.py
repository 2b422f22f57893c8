"""How the learner trains: batches, optimizer, devices, and how often it saves."""

from dataclasses import dataclass
from typing import Annotated, Literal

from common.config.checks import require
from common.config.ranges import DAY_S, MANY, Range, Section, Share

MISMATCH_TOLERANCES = {"float32": 1e-3, "bfloat16": 0.1}
"""By compute type, nats: two engines round differently, and more so with fewer bits. A model of 135
million parameters in bfloat16 differed from itself by 0.03 on average after questions, and by 0.04
after random ids, where its distributions are flat."""
COLLECTIVE_TIMEOUT_S = 1800.0
"""How long a rank waits for the others in a collective operation, seconds."""
COLLECTIVE_MARGIN_S = 60.0
"""What a step may take besides the wait for its batch before that, seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner(Section):
    """Batches, optimizer, staleness and checkpoints."""

    ranks: Annotated[int, Range("processes", least=1, most=65536)] = 1
    """FSDP processes."""
    first_gpu: Annotated[int, Range("GPU", least=0, most=4095)] = 0
    """GPU of the first rank on this machine, the others follow; the policy servers have those from
    0 on, so with ``policy_server.count`` times ``tensor_parallel`` here they share none."""
    threads: Annotated[int, Range("threads", least=0, most=4096)] = 0
    """Torch threads per rank on CPU; 0 for what suits the model and the cores."""
    groups: Annotated[int, Range("groups", least=1, most=1 << 20)] = 16
    """Groups in a batch."""
    group_size: Annotated[int, Range("trajectories", least=1, most=1 << 16)] = 8
    """Trajectories of the same task, compared with each other."""
    max_staleness: Annotated[int, Range("versions", least=0, most=10_000)] = 3
    """Versions an action may lag behind the learner; 0 is synchronous training."""
    depth: Annotated[float, Range("batches", least=0, most=10_000)] = 0.0
    """How far ahead of the learner sampling may run: batches that may be begun beyond the one that
    it waits for, at most ``max_staleness``; 0 goes as far as keeps the learner from waiting."""
    pack_tokens: Annotated[int, Range("tokens", least=16, most=MANY)] = 4096
    """Token budget of one packed micro-batch; at least ``model.max_context``."""
    updates_per_batch: Annotated[int, Range("optimizer steps", least=1, most=1 << 20)] = 1
    """Optimizer steps per batch, each on its own share of the groups."""
    filter_groups: Literal["none", "no_signal"] = "none"
    """``no_signal``: groups in which all returns are equal are replaced by other groups before a
    batch is taken."""
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
    final_share: Share = 1.0
    """What the policy's learning rate falls to until ``run.steps``, linearly, as a part of itself;
    1 keeps it."""
    weight_decay: Annotated[float, Range("per step and learning rate", least=0, most=1000)] = 0.0
    """Share of a matrix that each step takes away, per unit of learning rate."""
    grad_clip: Annotated[float, Range("L2 norm", above=0, most=1e12, infinite=True)] = 1.0
    """Largest L2 norm of the gradient; a larger one is scaled down to it."""
    checkpoint_every: Annotated[int, Range("steps", least=1, most=MANY)] = 10
    """Steps between checkpoints; the last step is always saved."""
    checkpoint_minutes: Annotated[float, Range("min", least=0, most=30 * DAY_S / 60)] = 0.0
    """A checkpoint is due this long after the one before, too; 0 for by steps alone."""
    checkpoints_kept: Annotated[int, Range("checkpoints", least=1, most=MANY)] = 2
    """Newest checkpoints that are kept; the best by held-out success stays beside them."""
    checkpoints_kept_every: Annotated[int, Range("steps", least=0, most=MANY)] = 0
    """One checkpoint in so many steps is kept for good; 0 for none."""
    mismatch_tolerance: Annotated[float, Range("nats", least=0, most=100)] = 0.0
    """Largest mean absolute log-probability difference at staleness 0 that is tolerated; 0 for what
    suits the compute type: 0.001 in float32, 0.1 in bfloat16."""
    batch_timeout_s: Annotated[float, Range("s", least=1, most=30 * DAY_S)] = 300.0
    """Longest wait for a full batch before the run stops with a named cause; with several ranks
    at most 1740 s."""

    def check(self) -> None:
        """Updates have groups of their own, depth a bound, and a collective outlasts a wait."""
        require(
            self.ranks == 1 or self.batch_timeout_s + COLLECTIVE_MARGIN_S <= COLLECTIVE_TIMEOUT_S,
            f"learner.batch_timeout_s ({self.batch_timeout_s:g}) must be at most "
            f"{COLLECTIVE_TIMEOUT_S - COLLECTIVE_MARGIN_S:g} with learner.ranks {self.ranks}: the "
            f"other ranks wait for the first in a collective, which gives up after "
            f"{COLLECTIVE_TIMEOUT_S:g} s",
        )
        require(
            self.depth <= self.max_staleness,
            f"learner.depth ({self.depth:g}) must be at most learner.max_staleness "
            f"({self.max_staleness}): what is begun further ahead would be too old to train on",
        )
        require(
            self.updates_per_batch <= self.groups,
            f"learner.updates_per_batch ({self.updates_per_batch}) must be at most "
            f"learner.groups ({self.groups}): each update needs a group of its own",
        )
