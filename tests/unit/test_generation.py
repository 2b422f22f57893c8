from typing import Any

import numpy as np
import pytest

from common.errors import PolicyServerError
from common.wire.generation import checked, version_number
from common.wire.hosting import Generated


def answer(**changes: Any) -> Generated:
    fields = {
        "token_ids": np.array([5, 6, 7], dtype=np.int32),
        "logprobs": np.array([-0.5, 1e-7, -2.0], dtype=np.float32),
        "versions": np.array([3, 3, 4], dtype=np.int32),
        "finish_reason": "stop",
    }
    return Generated(number=1, **(fields | changes))


def test_an_answer_becomes_arrays_with_a_version_for_each_token() -> None:
    generation = checked(answer())

    assert generation.token_ids.tolist() == [5, 6, 7]
    assert generation.logprobs.tolist() == [-0.5, 0.0, -2.0]
    assert generation.logprobs.dtype == np.float32
    assert generation.versions.tolist() == [3, 3, 4]
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize("logprob", [-9999.0, float("nan"), 0.1, float("-inf")])
def test_value_that_is_no_log_probability_is_refused(logprob: float) -> None:
    found = np.array([-1.0, logprob, -1.0], dtype=np.float32)

    with pytest.raises(PolicyServerError, match="token 1 has log-probability"):
        checked(answer(logprobs=found))


def test_log_probabilities_of_other_tokens_are_refused() -> None:
    with pytest.raises(PolicyServerError, match="3 tokens came with 2 log-probabilities"):
        checked(answer(logprobs=np.zeros(2, dtype=np.float32)))


def test_tokens_of_unpublished_weights_are_refused() -> None:
    with pytest.raises(PolicyServerError, match="the last weight update failed"):
        checked(answer(versions=np.array([3, -1, 4], dtype=np.int32)))


def test_labels_are_numbers_or_none() -> None:
    labels = ("default", "0", "12", "v1", "torn", "-1", "")

    assert [version_number(label) for label in labels] == [0, 0, 12, -1, -1, -1, -1]
