"""What a policy server sampled: ids, their log-probabilities and versions, checked as they come.

Shared by the actor's client and the learner's parity check.
"""

from dataclasses import dataclass

import numpy as np

from common.errors import PolicyServerError
from common.wire.hosting import Generated
from common.wire.records import Float32, Int32

UNPUBLISHED = "default"
"""vLLM's label of the weights that it loaded from the model folder: version 0.

A server that was restarted in mid-run says so too, until the publisher brings it back. That is the
truth: it samples with the initial weights, and the learner drops what is too stale.
"""

_LOGPROB_SLACK = 1e-4
"""A log-probability may exceed 0 by rounding, no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """What the policy sampled after a prompt.

    Attributes:
        token_ids: [T] int32, the stop token included when one was sampled.
        logprobs: [T] float32, log-probability under which each token was sampled.
        versions: [T] int32, weight version that sampled each token.
        finish_reason: ``stop``, ``length`` or ``abort``.
    """

    token_ids: Int32
    logprobs: Float32
    versions: Int32
    finish_reason: str


def checked(answer: Generated) -> Generation:
    """What a server answered.

    Raises:
        PolicyServerError: of unequal lengths, a log-probability that is none, or a token that no
            numbered weight version sampled.
    """
    lengths = {len(answer.token_ids), len(answer.logprobs), len(answer.versions)}
    if len(lengths) > 1:
        raise PolicyServerError(
            f"generation of {len(answer.token_ids)} tokens came with {len(answer.logprobs)} "
            f"log-probabilities and {len(answer.versions)} versions"
        )
    # vLLM says -9999 for a value that is not a number.
    good = (answer.logprobs > -9999.0) & (answer.logprobs <= _LOGPROB_SLACK)
    if not bool(good.all()):
        position = int(np.flatnonzero(~good)[0])
        value = float(answer.logprobs[position])
        raise PolicyServerError(f"token {position} has log-probability {value}")
    if bool((answer.versions < 0).any()):
        raise PolicyServerError(
            "no numbered weight version sampled some of the tokens; the last weight update failed, "
            "or something else than a learner of this project made it"
        )
    return Generation(
        token_ids=answer.token_ids,
        logprobs=np.minimum(answer.logprobs, np.float32(0)),
        versions=answer.versions,
        finish_reason=answer.finish_reason,
    )


def version_number(label: str) -> int:
    """The number of a weight version; -1 for a label that is none."""
    if label == UNPUBLISHED:
        return 0
    return int(label) if label.isdecimal() else -1
