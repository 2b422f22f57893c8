"""Numbers are equal by value, however they are written; what is no number equals nothing."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.rewards.numeric import equal_numbers, parse_number
from actors.rewards.task_types import task_type
from common.wire.records import Task


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        (" -3.50 ", Fraction(-7, 2)),
        ("+7", 7),
        ("−7", -7),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("1_000", 1000),
        ("1\u202f000\u00a0000", 1000000),
        ("50%", Fraction(1, 2)),
        (r"50\%", Fraction(1, 2)),
        ("12.5 %", Fraction(1, 8)),
        ("3/4", Fraction(3, 4)),
        ("-1 1/2", Fraction(-3, 2)),
        ("½", Fraction(1, 2)),
        ("1½", Fraction(3, 2)),
        ("$1,000", 1000),
        ("-€5", -5),
        ("2e3", 2000),
        ("1.5E-3", Fraction(3, 2000)),
        (r"\boxed{12}", 12),
        (r"$\frac{1}{3}$", Fraction(1, 3)),
        (r"-2\frac{1}{2}", Fraction(-5, 2)),
        ("１２", 12),
        ("$-5", -5),
        ("-$5", -5),
        ("($5)", -5),
        ("(€1,200.50)", Fraction(-2401, 2)),
        ("100 €", 100),
        ("$5 million", 5_000_000),
        ("-2.5 billion", -2_500_000_000),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        (r"\frac12", Fraction(1, 2)),
        (r"1{,}000", 1000),
        ("1 000", 1000),
        ("1’000’000", 1000000),
        ("10²", 100),
        ("1.5 × 10⁻³", Fraction(3, 2000)),
        (r"3 \times 10^{8}", 300_000_000),
        ("50 percent", Fraction(1, 2)),
        ("٣٫١٤", Fraction(157, 50)),
        ("5\u200b0", 50),
    ],
)
def test_a_number_is_read_exactly(text: str, value: Fraction | int) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "%", "about 5", "5 apples", "3,14", "12,34,567", "1/0", "10 00", "5²", "1e5000",
        "1,2,3", "5,1990", "(5)", "-$-5", "$5$5", "5 million million", "million", "10^999", "5$6",
        "1e999999999", "nan", "inf", "5 6", "--5", "9" * 101, "1/2/3", "0x10",
    ],
)  # fmt: skip
def test_anything_else_is_no_number(text: str) -> None:
    assert parse_number(text) is None


@given(st.text(max_size=120))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    assert parse_number(text) is None or isinstance(parse_number(text), Fraction)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9)))
def test_a_number_equals_itself_written_with_separators(value: object) -> None:
    assert equal_numbers(f"{value:,}", f"{value}", relative=0.0, absolute=0.0)


@pytest.mark.parametrize(
    ("answer", "gold", "details", "expected"),
    [
        ("1,000", "1000", {}, 1.0),
        ("0.3333333", "1/3", {}, 1.0),
        ("0.3333", "1/3", {}, 0.0),
        ("0.3333", "1/3", {"tolerance": "1e-3"}, 1.0),
        ("0.01", "0", {}, 0.0),
        ("0.01", "0", {"absolute_tolerance": "0.02"}, 1.0),
        ("50", "50%", {}, 0.0),
        ("fifty", "50", {}, 0.0),
    ],
)
def test_the_number_type_tolerates_a_small_relative_difference(
    answer: str, gold: str, details: dict[str, str], expected: float
) -> None:
    task = Task(task_id="t", question="?", answers=(gold,), kind="number", details=details)

    assert task_type("number").measure(task, answer) == {"exact_match": expected}


@pytest.mark.parametrize("tolerance", ["much", "-1", "nan", "inf"])
def test_a_tolerance_that_is_none_is_refused(tolerance: str) -> None:
    task = Task(
        task_id="t", question="?", answers=("5",), kind="number", details={"tolerance": tolerance}
    )

    with pytest.raises(ValueError, match=r"details\['tolerance'\] must be a number of at least 0"):
        task_type("number").check(task)
