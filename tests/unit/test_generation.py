import json
from typing import Any

import numpy as np
import pytest

from common.errors import PolicyServerError
from common.wire.generation import decode_response, encode_request


def make_response(**changes: Any) -> str:
    choice = {
        "token_ids": [5, 6, 7],
        "logprobs": {
            "content": [
                {"token_id": 5, "logprob": -0.5},
                {"token_id": 6, "logprob": 1e-7},
                {"token_id": 7, "logprob": -2.0},
            ]
        },
        "weight_versions": [
            {"version": "3", "start": 0, "end": 2},
            {"version": "4", "start": 2, "end": 3},
        ],
        "finish_reason": "stop",
    }
    return json.dumps({"choices": [choice | changes]})


def test_response_becomes_arrays_with_a_version_for_each_token() -> None:
    generation = decode_response(make_response())

    assert generation.token_ids.tolist() == [5, 6, 7]
    assert generation.token_ids.dtype == np.int32
    assert generation.logprobs.tolist() == [-0.5, 0.0, -2.0]
    assert generation.logprobs.dtype == np.float32
    assert generation.versions.tolist() == [3, 3, 4]
    assert generation.finish_reason == "stop"


@pytest.mark.parametrize("logprob", [-9999.0, float("nan"), 0.1, float("-inf")])
def test_value_that_is_no_log_probability_is_refused(logprob: float) -> None:
    content = [{"token_id": token, "logprob": logprob} for token in (5, 6, 7)]

    with pytest.raises(PolicyServerError, match="token 0 has log-probability"):
        decode_response(make_response(logprobs={"content": content}))


def test_log_probabilities_of_other_tokens_are_refused() -> None:
    content = [{"token_id": token, "logprob": -1.0} for token in (5, 6)]

    with pytest.raises(PolicyServerError, match="3 tokens came with log-probabilities of 2"):
        decode_response(make_response(logprobs={"content": content}))


@pytest.mark.parametrize("label", ["v1", "torn", "-1"])
def test_tokens_of_unpublished_weights_are_refused(label: str) -> None:
    spans = [{"version": label, "start": 0, "end": 3}]

    with pytest.raises(PolicyServerError, match="the last weight update failed"):
        decode_response(make_response(weight_versions=spans))


def test_tokens_without_a_version_are_refused() -> None:
    spans = [{"version": "3", "start": 0, "end": 2}]

    with pytest.raises(PolicyServerError, match="do not name a numbered version"):
        decode_response(make_response(weight_versions=spans))


@pytest.mark.parametrize("body", ["", "{}", '{"choices": []}', '{"choices": [{}]}', "null"])
def test_malformed_response_is_refused(body: str) -> None:
    with pytest.raises(PolicyServerError, match="cannot be read"):
        decode_response(body)


def test_request_detokenizes_only_for_stop_strings() -> None:
    plain = json.loads(encode_request([1, 2], max_tokens=4, temperature=1.0, stop_token_ids=[9]))
    text = json.loads(encode_request([1, 2], max_tokens=4, temperature=0.0, stop_strings=["x"]))

    assert plain["token_ids"] == [1, 2]
    assert plain["sampling_params"]["stop_token_ids"] == [9]
    assert plain["sampling_params"]["detokenize"] is False
    assert "seed" not in plain["sampling_params"]
    assert text["sampling_params"]["stop"] == ["x"]
    assert text["sampling_params"]["detokenize"] is True
