"""What only rank 0 of the learner has: the way to the actors and to the policy servers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common.telemetry.writers import MetricWriter
from common.wire.records import Task, Trajectory
from common.wire.sockets import Wire
from learner.coordination.intake import Intake
from learner.coordination.membership import Membership
from learner.coordination.replay import Replay
from learner.record import BatchLog
from learner.weights.background import BackgroundPublisher


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """The parts of rank 0 that the training loop works with.

    Attributes:
        family_of: what success is counted by.
        heldout: the questions that are asked while training.
        heldout_temperature: at which they are answered.
        replay: the journal since the checkpoint that the run goes on from.
        oldest_checkpoint: step of the oldest checkpoint that is kept.
        scored: gets the share of held-out questions that the weights after a step answered, mean
            over families.
        first_prompts: token ids, for the comparison with the servers before there is a batch.
        membership: the policy servers, and who of them may be asked.
        wire: the learner's sockets, with its keys.
    """

    intake: Intake
    publisher: BackgroundPublisher
    writers: Sequence[MetricWriter]
    family_of: Callable[[Trajectory], str]
    heldout: Sequence[Task]
    heldout_temperature: float = 1.0
    batches: BatchLog
    wire: Wire
    replay: Replay | None = None
    oldest_checkpoint: Callable[[], int | None] = lambda: None
    scored: Callable[[int, float], None] = lambda step, score: None
    first_prompts: Sequence[Sequence[int]] = ()
    membership: Membership = field(default_factory=lambda: Membership(()))
