"""Words of a text in any script; case, accents and width make no difference."""

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common import text_tokens
from common.text_tokens import ANY_TOKEN, INITIALS, fold, fold_whole, scan, word_tokens

PIECES = [*"aAbéàU.J-+#^ <>%$/'5,0²½東กé♭×−|()¬\u200b", "the", "1,000", "50 %", "per cent"]
TEXTS = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Zürich, the City", ["zurich", "the", "city"]),
        ("東京 Tower 2", ["東", "京", "tower", "2"]),
        ("カタカナ ｶﾞ", ["カ", "タ", "カ", "ナ", "ガ"]),
        ("กข ກຂ", ["ก", "ข", "ກ", "ຂ"]),
        ("서울 타워", ["서울", "타워"]),
        ("Ελλάδα и Москва", ["ελλάδα", "и", "москва"]),
        ("C# C++ C", ["c#", "c++", "c"]),
        ("AB-, AB+", ["ab-", "ab+"]),
        ("pre- and post-war", ["pre", "and", "post", "war"]),
        ("p+q", ["p", "+", "q"]),
        ("x²-1", ["x", "^", "2", "1"]),
        ("U.S., J. R. R., N.W", ["us", "jrr", "nw"]),
        ("U.S.-based", ["us", "based"]),
        ("−5 (-5) 4-5", ["-5", "-5", "4", "5"]),
        ("-$5 $-5 -.5", ["-5", "-5", "-0.5"]),
        ("1,234,567.5", ["1234567.5"]),
        ("3,14 or 1,2,3 or 12,34,567", ["3", "14", "or", "1", "2", "3", "or", "12", "34", "567"]),
        ("10² 10⁻³", ["10", "^", "2", "10", "^", "-3"]),
        ("1½", ["1", "1", "2"]),
        ("50 %, 50 percent, 50 per cent", ["50%"] * 3),
        ("٣٫١٤ ٥٠٪", ["3.14", "50%"]),
        ("zero\u200bwidth so\u00adft", ["zerowidth", "soft"]),
        ("100+ people", ["100", "people"]),
        ("<b>1990</b>", ["b", "1990", "b"]),
        ("x < 5", ["x", "<", "5"]),
        ("!!! ... 😀", []),
    ],
)
def test_the_words_of(text: str, tokens: list[str]) -> None:
    assert word_tokens(text) == tokens


@given(TEXTS)
@example("0:PERCENT")
@settings(max_examples=200, deadline=None)
def test_the_words_of_words_are_the_same(text: str) -> None:
    tokens = word_tokens(text)

    assert word_tokens(" ".join(tokens)) == tokens
    assert all(token and not token.isspace() for token in tokens)


@given(TEXTS | st.text(st.characters(codec="utf-8"), max_size=30))
@example("a\u200b\u0301b")
@example("\u0301é ﬁ\u0327x")
@settings(max_examples=400, deadline=None)
def test_what_is_folded_in_parts_is_folded_as_a_whole(text: str) -> None:
    assert fold(text) == fold_whole(text)


@given(TEXTS)
@example("-$ .5 1,234 1.2.3 J. R. 5 % x")
@settings(max_examples=400, deadline=None)
def test_the_quick_way_to_tokens_finds_those_of_the_patterns(text: str) -> None:
    folded = fold_whole(text)
    joined = INITIALS.sub(lambda found: re.sub(r"[.\s]", "", found.group()) + " ", folded)
    plain = text_tokens.SIGN_BEFORE_CURRENCY.sub(" -", joined)
    plain = re.sub(r"(?<![\w.])\.(?=\d)", "0.", plain)
    plain = text_tokens.THOUSANDS.sub(lambda found: found.group().replace(",", ""), plain)
    plain = text_tokens.POINTS.sub(lambda found: found.group().replace(".", " "), plain)
    wanted = re.findall(ANY_TOKEN, text_tokens.SPACED_PERCENT.sub("%", plain))

    if "percent" not in wanted and "cent" not in wanted:
        assert scan(text_tokens.join_initials(folded)) == wanted


@pytest.mark.parametrize(
    "piece",
    [
        "a", "a.", "a. ", "1", "1,", "1.", "1 ", "100,", "1 percent ", "-", "+", "^", "<", "< ",
        " ", "a+", "( ", "!", "a!", "$-", "50 %", "東", "e\u0301", "\u0301", "²", "\u200b", "per ",
    ],
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * 60_000)[:60_000]
    began = time.process_time()

    word_tokens(text)

    assert time.process_time() - began < 1.0
