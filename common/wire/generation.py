"""The policy server's token interface: token ids in; ids, log-probabilities and versions out.

Pure functions over the JSON of vLLM's ``/inference/v1/generate``, shared by the actor's client and
the learner's parity check.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.errors import PolicyServerError
from common.wire.records import Float32, Int32

GENERATE_PATH = "/inference/v1/generate"

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


def encode_request(
    prompt_ids: Sequence[int],
    *,
    max_tokens: int,
    temperature: float,
    stop_token_ids: Sequence[int] = (),
    stop_strings: Sequence[str] = (),
    seed: int | None = None,
) -> bytes:
    """The JSON body of a generation request: plain sampling, no top-p, no top-k, no penalties.

    The server turns tokens into text only where stop strings need it.
    """
    sampling: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "logprobs": 0,
        "flat_logprobs": True,
        "skip_special_tokens": False,
        "detokenize": bool(stop_strings),
    }
    if stop_token_ids:
        sampling["stop_token_ids"] = list(stop_token_ids)
    if stop_strings:
        sampling["stop"] = list(stop_strings)
    if seed is not None:
        sampling["seed"] = seed
    body = {"token_ids": [int(token) for token in prompt_ids], "sampling_params": sampling}
    return json.dumps(body, separators=(",", ":")).encode()


def decode_response(body: bytes | str) -> Generation:
    """The generation in a response body.

    Raises:
        PolicyServerError: malformed, of unequal lengths, a log-probability that is none, or a
            token that no numbered weight version sampled.
    """
    try:
        choice = json.loads(body)["choices"][0]
        token_ids = choice["token_ids"]
        entries = choice["logprobs"]["content"]
        spans = choice["weight_versions"] or []
        finish_reason = str(choice["finish_reason"])
    except (ValueError, LookupError, TypeError) as error:
        raise PolicyServerError(f"generation cannot be read ({error!r}): {body[:200]!r}") from error
    if [entry["token_id"] for entry in entries] != token_ids:
        raise PolicyServerError(
            f"generation of {len(token_ids)} tokens came with log-probabilities of "
            f"{len(entries)} other tokens"
        )
    return Generation(
        token_ids=np.array(token_ids, dtype=np.int32),
        logprobs=_checked_logprobs([entry["logprob"] for entry in entries]),
        versions=_expand_versions(spans, len(token_ids)),
        finish_reason=finish_reason,
    )


def _checked_logprobs(values: Sequence[float]) -> Float32:
    for position, value in enumerate(values):
        # vLLM sends -9999 for a value that is not a number.
        if not math.isfinite(value) or value > _LOGPROB_SLACK or value <= -9999.0:
            raise PolicyServerError(f"token {position} has log-probability {value}")
    return np.minimum(np.array(values, dtype=np.float32), 0)


def _expand_versions(spans: Sequence[Mapping[str, Any]], length: int) -> Int32:
    versions = np.full(length, -1, dtype=np.int32)
    for span in spans:
        versions[span["start"] : span["end"]] = _version_number(span["version"])
    if bool((versions < 0).any()):
        raise PolicyServerError(
            f"weight versions {list(spans)} do not name a numbered version for each of "
            f"{length} tokens; the last weight update failed, or something else than a learner "
            "of this project made it"
        )
    return versions


def _version_number(label: str) -> int:
    if label == UNPUBLISHED:
        return 0
    return int(label) if label.isdecimal() else -1
