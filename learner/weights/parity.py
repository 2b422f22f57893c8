"""Compares the log-probabilities of a policy server with the learner's own.

Off-policy corrections rest on them: a server that samples with other weights than it claims (a
stale packed matrix, another dtype) looks like training that quietly goes nowhere.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from common.errors import PolicyMismatchError, PolicyServerError
from common.wire.generation import Generation
from common.wire.hosting import Generate
from common.wire.sockets import Wire
from learner.coordination.roster import LiveServer
from learner.weights.control import ServerControl

log = logging.getLogger(__name__)

PROBE_TOKENS = 16
"""Tokens that a check lets a server sample after each prompt."""
_TIMEOUT_S = 60.0
"""Longest wait for one answer, seconds."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What one policy server sampled after some prompts, and under which version.

    Attributes:
        server: its name.
        version: of the weights that sampled all of it.
        prompts: token ids, none empty.
        generations: one for each prompt, none without tokens.
    """

    server: str
    version: int
    prompts: tuple[tuple[int, ...], ...]
    generations: tuple[Generation, ...]


def control_of(server: LiveServer, wire: Wire) -> ServerControl:
    """How ``server`` is asked; ``wire`` has the learner's keys."""
    return ServerControl(wire, server.name, server.address, timeout_s=_TIMEOUT_S)


def sample_answers(
    control: ServerControl, prompts: Sequence[Sequence[int]], *, version: int
) -> Answers:
    """Let a policy server continue each prompt, all at once: it is busy with those of actors.

    Args:
        control: of the policy server.
        prompts: token ids, none empty, with room for PROBE_TOKENS in the server's context.
        version: the version the learner's model has.

    Raises:
        PolicyMismatchError: another version answered, or several.
        PolicyServerError: the server did not answer, or not in a way that can be read.
    """
    with ThreadPoolExecutor(max_workers=len(prompts)) as threads:
        generations = tuple(threads.map(partial(_sample, control), prompts))
    _check_version(control.name, generations, version)
    return Answers(
        server=control.name,
        version=version,
        prompts=tuple(tuple(prompt) for prompt in prompts),
        generations=generations,
    )


def compare_answers(
    answers: Answers,
    model_logprobs: ModelLogprobs,
    tolerance: float,
    *,
    origin: str = "prompts",
) -> Parity:
    """Compare what a server sampled with the learner.

    Args:
        answers: of the server.
        model_logprobs: the learner's own; called once per prompt, in order, on this thread.
        tolerance: largest mean absolute difference accepted, in nats.
        origin: what the prompts are, in words.

    Raises:
        PolicyMismatchError: the mean difference exceeds ``tolerance``.
    """
    ours = [
        np.asarray(model_logprobs(list(prompt), generation.token_ids.tolist()))
        for prompt, generation in zip(answers.prompts, answers.generations, strict=True)
    ]
    theirs = np.concatenate([generation.logprobs for generation in answers.generations])
    parity = compare(theirs, np.concatenate(ours), version=answers.version)
    log.info(
        "compared log-probabilities server=%s version=%d tokens=%d mean=%.2e max=%.2e after=%r",
        answers.server, parity.version, parity.tokens, parity.mean_difference,
        parity.max_difference, origin,
    )  # fmt: skip
    # Not `>`: a difference that is not a number must not pass.
    if not parity.mean_difference <= tolerance:
        asked = f"{len(answers.prompts)} {origin}"
        raise PolicyMismatchError(_explain(answers.server, parity, tolerance, asked))
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


def _sample(control: ServerControl, prompt: Sequence[int]) -> Generation:
    ids = np.array(prompt, dtype=np.int32)
    generation = control.generate(
        Generate(number=0, token_ids=ids, max_tokens=PROBE_TOKENS, temperature=1.0)
    )
    if not len(generation.token_ids):
        raise PolicyServerError(f"policy server {control.name} sampled no token")
    return generation


def _check_version(name: str, generations: Sequence[Generation], expected: int) -> None:
    found = sorted({int(v) for generation in generations for v in generation.versions})
    if found != [expected]:
        raise PolicyMismatchError(
            f"policy server {name} sampled with weight versions {found}, the parity check needs "
            f"version {expected}; do not publish while it runs"
        )


def _explain(name: str, parity: Parity, tolerance: float, asked: str) -> str:
    return (
        f"policy server {name} and learner disagree at weight version {parity.version}: "
        f"log-probabilities of {parity.tokens} tokens that it sampled after {asked} differ by "
        f"{parity.mean_difference:.2e} on average and {parity.max_difference:.2e} at most, "
        f"{tolerance:.2e} is allowed (learner.mismatch_tolerance). A few times as much is likely "
        'rounding: set model.dtype = "float32", or allow more if importance weights may be that '
        "far off. Much more has another cause: the server kept a stale copy of a tied lm_head, an "
        "update was lost, or the learner's attention mask or positions are wrong"
    )
