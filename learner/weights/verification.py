"""Checks, on all ranks together, that the policy servers sample with the learner's weights."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from common.messages import NOT_AN_ACTION, Segment, Trajectory
from learner.engine.model import token_logprobs
from learner.engine.sharding import Rank
from learner.packs.exchange import share_work
from learner.packs.packing import Pack, pack_segments, segment_of_actions
from learner.weights.parity import Parity, check_parity

NUM_PROBES = 4
"""Prompts per check."""


class ParityVerifier:
    """Compares log-probabilities of short continuations; every rank calls ``run`` together."""

    def __init__(
        self, model: nn.Module, rank: Rank, server_urls: Sequence[str], *, tolerance: float
    ) -> None:
        """``tolerance`` is the largest mean absolute difference accepted, in nats."""
        self._model = model
        self._rank = rank
        self._server_urls = server_urls
        self._tolerance = tolerance

    def run(self, prompts: Sequence[Sequence[int]] | None, *, version: int) -> list[Parity]:
        """Check every server; rank 0 brings NUM_PROBES prompts and gets the results.

        Raises:
            PolicyMismatch: a server disagrees, or samples with another version.
            PolicyServerError: a server did not answer.
        """
        results: list[Parity] = []
        for url in self._server_urls:
            if self._rank.is_first and prompts is not None:
                results.append(
                    check_parity(url, self._lead, prompts, self._tolerance, version=version)
                )
            else:
                for _ in range(NUM_PROBES):
                    self._forward(share_work(None, None).packs[0])
        return results

    def _lead(self, prompt: list[int], sampled: list[int]) -> list[float]:
        pack = _pack(prompt, sampled)
        copies = [[pack] for _ in range(self._rank.count)]
        return self._forward(share_work(copies, torch.zeros(1)).packs[0])

    def _forward(self, pack: Pack) -> list[float]:
        with torch.no_grad():
            return token_logprobs(self._model, pack.to(self._rank.device)).tolist()


def random_prompts(vocabulary: int, *, seed: int) -> list[list[int]]:
    """Prompts for the check before there are trajectories: random ids."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocabulary, 24).tolist() for _ in range(NUM_PROBES)]


def real_prompts(batch: Sequence[Trajectory]) -> list[list[int]]:
    """Prompts out of a batch: contexts up to the first action of some of its segments."""
    segments = [segment for trajectory in batch for segment in trajectory.segments]
    stride = max(1, len(segments) // NUM_PROBES)
    chosen = [segments[(i * stride) % len(segments)] for i in range(NUM_PROBES)]
    return [_prompt_of(segment) for segment in chosen]


def _prompt_of(segment: Segment) -> list[int]:
    sampled = np.flatnonzero(segment.action_index != NOT_AN_ACTION)
    end = int(sampled[0]) if len(sampled) else len(segment.token_ids)
    return [int(token) for token in segment.token_ids[:end]]


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
