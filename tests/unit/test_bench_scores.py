"""Where ours and SQuAD's exact match differ on gold answers is found, and has a reason."""

import json
from pathlib import Path

import pytest

from benchmarks.bench_scores import disagreements, main


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("-7", "7", "a sign in front of a number"),
        ("7.5", "75", "a decimal point"),
        ("7", "7%", "percent"),
        ("(2,7)", "27", "a list of numbers, a range or a date in digits"),
        ("Harbor+", "harbor", "a plus, sharp or caret"),
        ("Class A", "class", "an A at the end"),
        ("???", "???", "nothing but punctuation"),
        ("The The", "A", "articles alone"),
        (r"7,\!000", "7000", "LaTeX"),
        ("(-2,7)", "27", "a sign in front of a number + a list of numbers, a range or a date in "),
    ],
)
def test_what_only_squad_calls_equal_is_told_by_what_it_deletes(
    one: str, other: str, reason: str
) -> None:
    pairs = [
        found for found in disagreements({one, other}) if one == other or found.one != found.other
    ]

    assert [(found.ours, found.reason[: len(reason)]) for found in pairs] == [(False, reason)]


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("Aldén", "Alden", "accents"),
        ("Alden’s", "Alden's", "an apostrophe or dash beyond ASCII"),
        ("Port-Alden", "Port Alden", "ASCII punctuation between words"),
        ("A. K. Keller", "AK Keller", "initials with spaces between them"),
        ("4 May 1931", "May 4th, 1931", "the same date in another form"),
        ("Dr.Keller", "Dr Keller", "a point or comma without a space behind it"),
        ("Ｐort", "Port", "width, ligatures and raised digits"),
        ("£7", "7", "a currency or another symbol beyond ASCII"),
        ("Por\u00adt", "Port", "invisible characters"),
        ("7 000", "7000", "spaces between thousands"),
        ("7 percent", "7%", "percent in words"),
        ("٧", "7", "digits of other scripts"),
        ("straße", "STRASSE", "case folding"),
        ("東 京", "東京", "a space in scripts without spaces"),
        ("Anti sea-wall", "anti-seawall", "punctuation left out on one side and a space on the "),
    ],
)
def test_what_only_ours_calls_equal_is_told_by_what_it_sees_through(
    one: str, other: str, reason: str
) -> None:
    pairs = list(disagreements({one, other}))

    assert [(found.ours, found.reason[: len(reason)]) for found in pairs] == [(True, reason)]


def test_what_both_judge_alike_is_not_told() -> None:
    assert not list(
        disagreements({"The Port", "port", "Port Alden", "U.S.", "US", "7,000", "7000"})
    )


def test_the_command_prints_each_pair_and_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tasks.jsonl"
    golds = (["Aldén", "Alden"], ["-7"], ["7"])
    tasks = [{"task_id": str(i), "question": "?", "answers": gold} for i, gold in enumerate(golds)]
    file.write_text("\n".join(map(json.dumps, tasks)))

    assert main([str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "equal for SQuAD only: '-7'  '7'  (a sign in front of a number)",
        "equal for ours only: 'Alden'  'Aldén'  (accents)",
        "4 different gold answers, 2 pairs judged differently",
        "     1  equal for ours only: accents",
        "     1  equal for SQuAD only: a sign in front of a number",
    ]
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
