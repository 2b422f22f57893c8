"""Nothing that is printed can steer a terminal, whoever wrote it."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.visible import visible, visible_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;pwned\x07", "\u241b]0;pwned\u2407"),
        ("a\x9b31mb", "a\N{SYMBOL FOR DELETE}31mb"),
        ("user\u202enimda", "user<U+202E>nimda"),
        ("\u2066x\u2069", "<U+2066>x<U+2069>"),
        ("one\u2028two", "one<U+2028>two"),
        ("cut \ud83d", "cut \N{REPLACEMENT CHARACTER}"),
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("Zürich, 東京, שלום", "Zürich, 東京, שלום"),
    ],
)
def test_what_could_steer_a_terminal_gets_a_picture(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_no_text_keeps_a_control_character(text: str) -> None:
    line = visible_line(text)

    line.encode()
    assert "Cc" not in {unicodedata.category(c) for c in line if c != "\t"}
    assert not {unicodedata.bidirectional(c) for c in line} & {
        "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI",
    }  # fmt: skip
