"""What we write is JSON for every reader, and numbers survive it."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.json_output import as_number, json_text

TEXT = st.text(st.characters(), max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(VALUES, st.booleans())
def test_every_value_is_written_as_strict_json_on_one_line(value: Any, readable: bool) -> None:
    text = json_text(value, readable=readable)

    json.loads(text, parse_constant=pytest.fail)
    assert len(text.splitlines()) == 1
    text.encode()


@given(st.floats())
def test_a_number_reads_back_as_it_was(value: float) -> None:
    back = as_number(json.loads(json_text(value)))

    assert back == value or math.isnan(back) is math.isnan(value) is True


def test_text_that_no_encoding_takes_is_escaped() -> None:
    assert json_text("é \ud83d \u2028", readable=True) == '"é \\ud83d \\u2028"'
    assert json.loads(json_text("\ud83d", readable=True)) == "\ud83d"
