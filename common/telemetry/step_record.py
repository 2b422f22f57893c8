"""One line of ``metrics.jsonl``: what is known after one optimizer step, and of what it tells.

Most numbers are of the step alone; some count from the beginning of the run, one is smoothed, and
some tell of something that began earlier. Each field says which, so that a reader adds up,
subtracts or averages only what may be.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated


class Scope(StrEnum):
    """What a number of a record is about."""

    STEP = "step"
    """This step alone; sums and means over steps make sense."""
    RUN = "run"
    """From the beginning of the run, all attempts, to the end of this step; the last one counts."""
    MEAN = "mean"
    """A mean from the beginning of the run to the end of this step."""
    EARLIER = "earlier"
    """Of an evaluation or a publish that was begun before this step and had ended in it."""


StepInt = Annotated[int, Scope.STEP]
StepFloat = Annotated[float, Scope.STEP]
StepShares = Annotated[dict[str, float], Scope.STEP]


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """What ``metrics.jsonl`` says after one optimizer step. Shares lie in [0, 1].

    Fields with a default were added later; records of earlier versions lack them.
    """

    step: StepInt
    """Optimizer steps done, this one included."""
    weight_version: StepInt
    """Version of the weights that this step made."""
    seconds: Annotated[float, Scope.RUN]
    """Seconds of training, from the first admission on, without pauses between attempts."""
    step_s: StepFloat = 0.0
    """Seconds from the end of the step before to the end of this one."""
    trajectories_trained: Annotated[int, Scope.RUN]
    """Trajectories trained on."""
    trajectories: StepInt = 0
    """Trajectories of this step's batch; fewer than usual where groups were short."""
    trajectories_per_s: StepFloat
    """``trajectories / step_s``."""
    trajectories_per_s_mean: Annotated[float, Scope.MEAN] = 0.0
    """``trajectories_trained / seconds``."""
    reward: StepFloat
    """Mean sum of the rewards of a trajectory."""
    exact_match: StepFloat
    """Share of the batch's answers that equal a gold answer."""
    family_success: StepShares
    """The same by the task label ``family``, or by source where training draws from several."""
    heldout: Annotated[dict[str, float], Scope.EARLIER] = field(default_factory=dict)
    """The same of a short evaluation that ended since the line before this one; empty when there
    was none."""
    heldout_versions: Annotated[dict[str, int], Scope.EARLIER] = field(default_factory=dict)
    """The ``oldest`` and the ``newest`` weight version that sampled in it."""
    scores: StepShares = field(default_factory=dict)
    """Means of what the trajectories record (docs/rewards.md), each over those that have it."""
    signal_share: StepFloat = 1.0
    """Share of groups in which some action has an advantage."""
    parsed_share: StepFloat = 1.0
    """Share of actions that parse."""
    cells_ok_share: StepFloat = 1.0
    """Share of the cells written that ran without an error; 1 where none was written."""
    staleness: Annotated[dict[str, int], Scope.STEP]
    """Actions by how many versions they lagged."""
    depth: StepFloat = 0.0
    """Batches that might be begun beyond the one the learner waited for, at the end of the step."""
    credit: StepFloat = 1.0
    """Part of the episodes that actors ask for which might be in flight at the end of the step, by
    what policy servers bear; 1 where nothing limits it."""
    dropped: Annotated[dict[str, int], Scope.RUN]
    """Trajectories dropped, by reason."""
    loss: StepFloat
    """Of the last update; 0 where nothing was to be learned."""
    grad_norm: StepFloat
    """L2 norm of the gradient before clipping."""
    learning_rate: StepFloat
    """Of the update; 0 where there was none."""
    skipped: Annotated[bool, Scope.STEP]
    """Whether the gradient was not finite and not applied."""
    effective_sample_share: StepFloat
    """Effective sample size of the importance weights, per action."""
    masked: StepShares
    """Shares of actions that gave no gradient, by reason."""
    k3: StepFloat
    """Estimate of the divergence from the policy that sampled, nats per token."""
    mismatch_mean: StepFloat
    """Mean absolute log-probability difference on tokens whose version was the learner's, nats."""
    mismatch_max: StepFloat
    """The largest of these."""
    mismatch_tokens: StepInt
    """How many tokens that were."""
    action_tokens: StepInt
    """Tokens of all actions."""
    packed_tokens: StepInt
    """Tokens computed, prompts and observations included."""
    steps_per_trajectory: StepFloat
    """Actions."""
    segments_per_trajectory: StepFloat = 1.0
    """Contexts."""
    wait_s: StepFloat
    """Seconds the learner waited for the batch."""
    train_s: StepFloat
    """Seconds of forward, backward and update."""
    publish_s: Annotated[float, Scope.EARLIER]
    """Seconds the last finished publish took, beside training."""
    paused_s: Annotated[float, Scope.EARLIER]
    """Longest pause of a policy server in it, seconds."""
    diagnostics: StepShares = field(default_factory=dict)
    """How far the learner is from the policy that sampled (docs/objectives.md)."""
