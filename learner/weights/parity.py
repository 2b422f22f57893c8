"""Compares the log-probabilities of a policy server with the learner's own.

Off-policy corrections rest on them: a server that samples with other weights than it claims (a
stale packed matrix, another dtype) looks like training that quietly goes nowhere.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import PolicyMismatch, PolicyServerError
from common.generation import GENERATE_PATH, Generation, decode_response, encode_request
from learner.weights.server_control import ServerControl

log = logging.getLogger(__name__)

ModelLogprobs = Callable[[list[int], list[int]], Sequence[float]]
"""(prompt ids, sampled ids) to the learner's log-probability of each sampled id, temperature 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How far server and learner are apart.

    Attributes:
        version: the weight version that sampled the tokens.
        tokens: tokens compared.
        mean_difference, max_difference: absolute differences of log-probabilities, in nats.
    """

    version: int
    tokens: int
    mean_difference: float
    max_difference: float


def check_parity(
    server_url: str,
    model_logprobs: ModelLogprobs,
    prompts: Sequence[Sequence[int]],
    tolerance: float,
    *,
    version: int | None = None,
    max_tokens: int = 16,
    timeout_s: float = 60.0,
) -> Parity:
    """Sample a short continuation of each prompt and compare log-probabilities.

    Args:
        server_url: the policy server.
        model_logprobs: the learner's own; called once per prompt, on the calling thread.
        prompts: token ids, none empty.
        tolerance: largest mean absolute difference accepted, in nats.
        version: the version the learner's model has; None to accept any single one.
        max_tokens: tokens sampled per prompt.
        timeout_s: longest wait for one answer.

    Raises:
        PolicyMismatch: the mean difference exceeds ``tolerance``, or another version answered.
        PolicyServerError: the server did not answer.
    """
    control = ServerControl(server_url, timeout_s=timeout_s)
    generations = [_sample(control, prompt, max_tokens) for prompt in prompts]
    found = _single_version(server_url, generations, version)
    ours = [
        np.asarray(model_logprobs(list(prompt), generation.token_ids.tolist()))
        for prompt, generation in zip(prompts, generations, strict=True)
    ]
    theirs = np.concatenate([generation.logprobs for generation in generations])
    parity = compare(theirs, np.concatenate(ours), version=found)
    log.info(
        "compared log-probabilities server=%s version=%d tokens=%d mean=%.2e max=%.2e",
        server_url, parity.version, parity.tokens, parity.mean_difference, parity.max_difference,
    )  # fmt: skip
    # Not `>`: a difference that is not a number must not pass.
    if not parity.mean_difference <= tolerance:
        raise PolicyMismatch(_explain(server_url, parity, tolerance))
    return parity


def compare(
    theirs: Sequence[float] | np.ndarray, ours: Sequence[float] | np.ndarray, *, version: int
) -> Parity:
    """The distance of two equally long lists of log-probabilities."""
    difference = np.abs(np.asarray(theirs, dtype=np.float64) - np.asarray(ours, dtype=np.float64))
    if difference.size == 0:
        raise ValueError("no tokens to compare")
    return Parity(
        version=version,
        tokens=int(difference.size),
        mean_difference=float(difference.mean()),
        max_difference=float(difference.max()),
    )


def _sample(control: ServerControl, prompt: Sequence[int], max_tokens: int) -> Generation:
    body = encode_request(prompt, max_tokens=max_tokens, temperature=1.0)
    generation = decode_response(control.generate(body, GENERATE_PATH))
    if not len(generation.token_ids):
        raise PolicyServerError(f"policy server {control.url} sampled no token")
    return generation


def _single_version(url: str, generations: Sequence[Generation], expected: int | None) -> int:
    found = sorted({int(v) for generation in generations for v in generation.versions})
    if len(found) == 1 and expected in (None, found[0]):
        return found[0]
    wanted = "a single version" if expected is None else f"version {expected}"
    raise PolicyMismatch(
        f"policy server {url} sampled with weight versions {found}, the parity check needs "
        f"{wanted}; do not publish while it runs"
    )


def _explain(url: str, parity: Parity, tolerance: float) -> str:
    return (
        f"policy server {url} and learner disagree at weight version {parity.version}: "
        f"log-probabilities of {parity.tokens} tokens differ by {parity.mean_difference:.2e} on "
        f"average and {parity.max_difference:.2e} at most, {tolerance:.2e} is allowed. Likely "
        "causes: the server kept a stale copy of a tied lm_head, model.dtype is narrower than "
        "the learner's, an update was lost, or the learner's attention mask or positions are "
        "wrong"
    )
