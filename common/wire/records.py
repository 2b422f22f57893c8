"""The records that cross process borders: frozen, checked on construction, free of behaviour.

Shapes: L tokens of a segment, K steps (actions) of a trajectory. Log-probabilities are natural
logs. ``common.wire.codec`` turns these records into bytes and back.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from common.json_input import surrogate_in

Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]

_LATEST = np.iinfo(np.int32).max
NOT_AN_ACTION = -1
"""Value of ``Segment.action_index`` and ``Segment.versions`` on tokens nobody sampled."""


class Purpose(StrEnum):
    """What an episode is run for."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class Outcome(StrEnum):
    """How an episode ended. Only ``INFRASTRUCTURE`` keeps a trajectory out of training."""

    SUBMITTED = "submitted"
    OUT_OF_STEPS = "out_of_steps"
    OUT_OF_CONTEXT = "out_of_context"
    OUT_OF_TOKENS = "out_of_tokens"
    UNPARSABLE = "unparsable"
    KERNEL_DIED = "kernel_died"
    TIMED_OUT = "timed_out"
    INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A question with what is needed to score an answer to it.

    ``answers`` and ``details`` never reach the sandbox. ``corpus`` names the corpus that
    ``search`` uses. ``labels`` are free strings for reports (question kind, split, wording,
    subject ...).

    Attributes:
        kind: the task type that scores it: ``qa``, or ``package.module:name``; docs/extending.md.
        files: paths on the host of files that are put into the notebook's working folder.
        details: whatever its task type needs to score an answer, e.g. unit tests.
    """

    task_id: str
    question: str
    answers: tuple[str, ...] = ()
    corpus: str = "train"
    labels: dict[str, str] = field(default_factory=dict)
    kind: str = "qa"
    files: tuple[str, ...] = ()
    details: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject a task that cannot be asked or scored."""
        if not self.task_id:
            raise ValueError("task_id must not be empty")
        if not self.question.strip():
            raise ValueError(f"task '{self.task_id}': question must not be empty")
        texts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if (where := surrogate_in(texts)) is not None:
            raise ValueError(
                f"task {self.task_id!r}: field '{where}' holds half of a surrogate pair, which "
                "UTF-8 cannot carry; write the whole character or take it out"
            )
        if self.kind == "qa" and not any(answer.strip() for answer in self.answers):
            raise ValueError(
                f"task '{self.task_id}': answers must hold at least one non-empty string, "
                f"got {list(self.answers)!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One action and the observation it caused, as text, for people and for reward terms.

    Training uses the token ids of the segments; this text is never encoded again.

    Attributes:
        action: the sampled text.
        code: the cell, or None where the action does not parse.
        observation: what the policy saw of the cell's output.
        tool_calls: names of the tools that were called from the start of the cell to that of the
            next one, in order.
        finish_reason: of the sampling, as the policy server says.
        status: how the cell ended: ``ok``, ``error``, ``timed_out``, ``died`` with its kernel, or
            empty where none ran.
        outputs: how many outputs a notebook would show of the cell.
        seconds: wall time of the cell.
        tokens: tokens sampled.
    """

    action: str
    code: str | None
    observation: str
    tool_calls: tuple[str, ...] = ()
    finish_reason: str = "stop"
    status: str = ""
    outputs: int = 0
    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A context between two trims: everything the policy saw and sampled, token by token.

    Attributes:
        token_ids: [L] int32, prompt, actions and observations in order.
        action_index: [L] int32, the step whose action sampled this token, or NOT_AN_ACTION.
        behaviour_logprobs: [L] float32, log-probability under which the token was sampled; 0
            where ``action_index`` is NOT_AN_ACTION.
        versions: [L] int32, weight version that sampled the token, or NOT_AN_ACTION.
    """

    token_ids: Int32
    action_index: Int32
    behaviour_logprobs: Float32
    versions: Int32

    def __post_init__(self) -> None:
        """Reject fields of different length and actions without version."""
        lengths = {
            "token_ids": len(self.token_ids),
            "action_index": len(self.action_index),
            "behaviour_logprobs": len(self.behaviour_logprobs),
            "versions": len(self.versions),
        }
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"per-token fields of a segment differ in length: {listed}")
        # Masks and no picking of elements, which costs ten times as much.
        is_action = self.action_index != NOT_AN_ACTION
        if np.count_nonzero((self.versions < 0) & is_action):
            raise ValueError("a sampled token has no weight version")
        if np.count_nonzero((self.behaviour_logprobs != 0) & ~is_action):
            raise ValueError("a token that nobody sampled has a behaviour log-probability")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """The record of a finished episode.

    Attributes:
        trajectory_id: the id of its task lease; the learner drops a second one with the same id.
        group_id: trajectories of one group are compared with each other.
        sample_index: place in the group, from 0.
        segments: contexts between two trims, in order; none where nothing was sampled.
        step_rewards: [K] float32, one per action, in order.
        steps: the K steps as text.
        answer: what was submitted, or None.
        scores: named measurements of the answer, e.g. ``exact_match``, ``f1``, ``contains``.
        failure: what failed, as ``Kind: text``, for INFRASTRUCTURE, and for an OUT_OF_CONTEXT whose
            context was refused as too long; empty otherwise.
        kernel_level: isolation level of the kernel, e.g. ``A-forked`` (see docs/sandbox.md).
        cells_executed: notebook cells run.
        tokens_generated: tokens sampled, also those of actions that did not parse.
        question: what was asked, for people.
        started_at, finished_at: seconds since the epoch, on the actor's clock.
    """

    trajectory_id: str
    task_id: str
    group_id: str
    sample_index: int
    purpose: Purpose
    actor_id: str
    outcome: Outcome
    segments: tuple[Segment, ...]
    step_rewards: Float32
    steps: tuple[Step, ...]
    answer: str | None
    scores: dict[str, float]
    failure: str = ""
    kernel_level: str = ""
    cells_executed: int = 0
    tokens_generated: int = 0
    question: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0

    def __post_init__(self) -> None:
        """Reject a trajectory whose actions, rewards and steps do not belong together."""
        if self.outcome is Outcome.INFRASTRUCTURE:
            return
        if len(self.step_rewards) != len(self.steps):
            raise ValueError(
                f"trajectory '{self.trajectory_id}': {len(self.step_rewards)} rewards "
                f"for {len(self.steps)} steps"
            )
        highest = max(
            (int(s.action_index.max(initial=NOT_AN_ACTION)) for s in self.segments),
            default=NOT_AN_ACTION,
        )
        if highest >= len(self.steps):
            raise ValueError(
                f"trajectory '{self.trajectory_id}': tokens of action {highest}, "
                f"but only {len(self.steps)} steps"
            )

    @property
    def oldest_version(self) -> int | None:
        """The lowest weight version that sampled any of its tokens; None without actions."""
        return min((int(np.where(own, s.versions, _LATEST).min()) for s, own in self._sampled()),
                   default=None)  # fmt: skip

    @property
    def newest_version(self) -> int | None:
        """The highest of them; None without actions."""
        return max((int(np.where(own, s.versions, -1).max()) for s, own in self._sampled()),
                   default=None)  # fmt: skip

    def _sampled(self) -> Iterator[tuple[Segment, NDArray[np.bool_]]]:
        """Each segment that has sampled tokens, and which those are."""
        for segment in self.segments:
            sampled = segment.action_index != NOT_AN_ACTION
            if bool(sampled.any()):
                yield segment, sampled

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of the step rewards."""
        return float(self.step_rewards.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskLease:
    """A task handed to one session of an actor, to be run once (coordinator to actor).

    Attributes:
        lease_id: a function of group, member and attempt, so that whoever holds it can be
            recognised.
        serial: place among the leases sent to this session, from 1.
        timeout_s: how long its holder may run it, seconds from arrival.
    """

    lease_id: str
    group_id: str
    sample_index: int
    purpose: Purpose
    temperature: float
    task: Task
    serial: int = 0
    timeout_s: float = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """Name, dtype (torch's name without ``torch.``) and shape of one published tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightManifest:
    """What a published weight version consists of; the tensors follow as raw frames in order.

    ``checksum`` is the blake2b-16 hex digest of all frames in order. ``base`` is empty where the
    tensors are the whole model; where they are its adapters only, it is the checksum of the
    whole model that was published before.
    """

    version: int
    tensors: tuple[TensorSpec, ...]
    checksum: str
    base: str = ""
