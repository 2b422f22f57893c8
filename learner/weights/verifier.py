"""Checks, on all ranks together, that the policy servers sample with the learner's weights."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from common.chat import prompt_text
from common.errors import LZeroError, PolicyMismatchError, PolicyServerError
from common.wire.records import NOT_AN_ACTION, Segment, Trajectory
from common.wire.sockets import Wire
from learner.coordination.membership import Membership
from learner.coordination.roster import LiveServer
from learner.engine.agreement import broadcast_number
from learner.engine.mesh import Rank
from learner.engine.model import token_logprobs
from learner.packs.exchange import share_work
from learner.packs.packing import Pack, pack_segments, segment_of_actions
from learner.weights.parity import (
    PROBE_TOKENS,
    Answers,
    Parity,
    compare_answers,
    control_of,
    sample_answers,
)

T = TypeVar("T")

NUM_PROBES = 4
"""Prompts per check."""


class ParityVerifier:
    """Compares log-probabilities of short continuations.

    Rank 0 calls ``run`` while every other rank calls ``take_part``.
    """

    def __init__(self, model: nn.Module, rank: Rank, *, tolerance: float) -> None:
        """``tolerance`` is the largest mean absolute difference accepted, in nats."""
        self._model = model
        self._rank = rank
        self._tolerance = tolerance

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        membership: Membership,
        wire: Wire,
        *,
        version: int,
        origin: str = "prompts",
    ) -> list[Parity]:
        """Check the servers that have taken ``version``, which lets them into the rotation.

        One that gives no answer or disagrees leaves it; the run goes on with the others.

        Args:
            prompts: token ids, none empty.
            membership: of the servers.
            wire: with the learner's keys.
            version: of the learner's weights.
            origin: what the prompts are, in words.

        Raises:
            PolicyMismatchError: all servers that answered disagree, or sample with another version.
            PolicyServerError: no server answered.
        """
        answered, failures = self._ask(prompts, membership, wire, version)
        if not answered:
            self._agree(0)
            raise _nobody(failures)
        self._agree(len(answered) * len(prompts))
        found: list[Parity] = []
        faults: list[PolicyMismatchError] = []
        for server, answers in answered:
            try:
                parity = compare_answers(answers, self._lead, self._tolerance, origin=origin)
            except PolicyMismatchError as error:
                membership.fail(server, str(error))
                faults.append(error)
                continue
            found.append(parity)
            with membership.roster() as roster:
                roster.proved(server.name, server.life, version)
        if not found:
            raise faults[0]
        return found

    def _ask(
        self,
        prompts: Sequence[Sequence[int]],
        membership: Membership,
        wire: Wire,
        version: int,
    ) -> tuple[list[tuple[LiveServer, Answers]], list[LZeroError]]:
        """What each server answers, and what was wrong with those that did not."""
        answered: list[tuple[LiveServer, Answers]] = []
        failures: list[LZeroError] = []
        with membership.roster() as roster:
            servers = roster.holding(version)
        for server in servers:
            try:
                answers = sample_answers(control_of(server, wire), prompts, version=version)
            except (PolicyServerError, PolicyMismatchError) as error:
                failures.append(error)
                membership.fail(server, f"it did not answer the parity check: {error}")
            else:
                answered.append((server, answers))
        return answered, failures

    def take_part(self) -> None:
        """Compute along with rank 0, as often as it needs."""
        for _ in range(self._agree(0)):
            self._forward(share_work(None, None).packs[0])

    def _agree(self, forwards: int) -> int:
        """How often all ranks are going to compute together, as rank 0 says."""
        return forwards if self._rank.count == 1 else broadcast_number(forwards)

    def _lead(self, prompt: list[int], sampled: list[int]) -> list[float]:
        pack = _pack(prompt, sampled)
        copies = [[pack] for _ in range(self._rank.count)]
        return self._forward(share_work(copies, torch.zeros(1)).packs[0])

    def _forward(self, pack: Pack) -> list[float]:
        with torch.no_grad():
            return token_logprobs(self._model, pack.to(self._rank.device)).tolist()


def _nobody(failures: Sequence[LZeroError]) -> LZeroError:
    """No server answered as it should; one that answered something else says more."""
    for error in failures:
        if isinstance(error, PolicyMismatchError):
            return error
    listed = "; ".join(map(str, failures)) or "none has taken the newest weights"
    return PolicyServerError(f"no policy server could be compared with the learner: {listed}")


def random_prompts(vocabulary: int, *, seed: int, max_context: int) -> list[list[int]]:
    """Prompts for the check where there is nothing better: random ids."""
    rng = np.random.default_rng(seed)
    length = max(1, min(24, max_context - PROBE_TOKENS))
    return [rng.integers(0, vocabulary, length).tolist() for _ in range(NUM_PROBES)]


def question_prompts(
    questions: Sequence[str], encode: Callable[[str], list[int]], *, max_context: int
) -> list[list[int]]:
    """Prompts of a run's own questions, for the check before there is any batch.

    A system prompt is not among what the learner knows; what follows a question is the same.

    Args:
        questions: at least one.
        encode: text to token ids, with the tokenizer of the policy.
        max_context: of the policy server, tokens; what is longer is cut at its beginning.

    Returns:
        NUM_PROBES prompts, each with room for a continuation.
    """
    room = max(1, max_context - PROBE_TOKENS)
    return [encode(prompt_text(question))[-room:] for question in _spread(questions)]


def real_prompts(batch: Sequence[Trajectory], *, max_context: int) -> list[list[int]]:
    """Prompts out of a batch: contexts up to the first action of some of its segments.

    Args:
        batch: any trajectories.
        max_context: of the policy server, tokens; what is longer is cut at its end.

    Returns:
        NUM_PROBES prompts, each with room for a continuation; none where no segment has a prompt
        and an action.
    """
    room = max(1, max_context - PROBE_TOKENS)
    every = [_prompt_of(segment) for trajectory in batch for segment in trajectory.segments]
    prompts = [prompt[:room] for prompt in every if prompt]
    if not prompts:
        return []
    return _spread(prompts)


def _spread(some: Sequence[T]) -> list[T]:
    """NUM_PROBES of them, from all over."""
    stride = max(1, len(some) // NUM_PROBES)
    return [some[(i * stride) % len(some)] for i in range(NUM_PROBES)]


def _prompt_of(segment: Segment) -> list[int]:
    """What precedes the first action; nothing where there is no action."""
    sampled = np.flatnonzero(segment.action_index != NOT_AN_ACTION)
    return segment.token_ids[: sampled[0]].tolist() if len(sampled) else []


def _pack(prompt: list[int], sampled: list[int]) -> Pack:
    index = np.array([NOT_AN_ACTION] * len(prompt) + [0] * len(sampled), dtype=np.int32)
    segment = Segment(
        token_ids=np.array([*prompt, *sampled], dtype=np.int32),
        action_index=index,
        behaviour_logprobs=np.zeros(len(index), dtype=np.float32),
        versions=np.where(index == 0, 0, NOT_AN_ACTION).astype(np.int32),
    )
    packable = segment_of_actions(segment, name="probe", first_action_id=0)
    (pack,) = pack_segments([packable], budget=len(index))
    return pack
