"""What ``lzero eval`` shows of a result: tables on a terminal, and the page."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from launch.evaluate.comparison import compare_results
from launch.evaluate.folder import EvalFolder, EvalSettings
from launch.evaluate.page import write_page
from launch.evaluate.request import Prices
from launch.evaluate.results import score
from launch.evaluate.run import EvalResult
from launch.evaluate.show import print_result
from tests.unit.test_evaluation_results import episode, settings

LONG = "a-very-long-name-of-a-question-set-" * 3


@pytest.fixture
def result(tmp_path: Path) -> EvalResult:
    """Four samples, two sets with families of the same names, and one without any result."""
    records = [
        episode(n, float((n + sample) % 3 > 0), question_set=name, sample=sample, family=family)
        for name in (LONG, "hotpotqa")
        for n, family in enumerate(("bridge", "comparison") * 3)
        for sample in range(4)
    ]
    given: EvalSettings = replace(settings(LONG, "hotpotqa", "nq"), samples=4)
    others = [replace(record, scores=dict.fromkeys(record.scores, 0.0)) for record in records]
    return EvalResult(
        folder=EvalFolder(tmp_path),
        settings=given,
        results=score(given, records, Prices(prompt=1.0)),
        comparison=compare_results(records, others, "runs/other", given.names),
    )


def shown(result: EvalResult, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_result(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_no_number_is_cut_on_a_narrow_terminal(result: EvalResult) -> None:
    lines = shown(result, 80).splitlines()
    tables = [line for line in lines if line.startswith(("│", "┃", "┏", "└"))]

    assert "…" not in "".join(tables)
    assert {len(line) for line in tables if line.startswith(("┏", "└"))} <= set(range(81))
    assert all(line.endswith(("│", "┃", "┓", "┘")) for line in tables)
    assert re.search(r"66\.7 +│ +\d", "\n".join(lines))


def test_a_set_without_a_result_is_no_zero(result: EvalResult) -> None:
    lines = shown(result, 200).splitlines()
    row = next(line for line in lines if line.startswith("│ nq "))
    heading = next(line for line in lines if "HotpotQA" in line)

    assert not re.search(r"\d\.\d", row)
    assert "NQ" not in heading
    write_page(result)
    page = result.folder.report.read_text()
    assert "<span>nq, exact</span><b>no result</b>" in page


def test_the_chart_has_a_bar_for_each_family_of_each_set(result: EvalResult) -> None:
    write_page(result)

    (chart,) = re.findall("<svg.*?</svg>", result.folder.report.read_text(), re.DOTALL)
    assert chart.count("<rect") == 2 * 3 + 1
    assert max(map(len, re.findall("<text[^>]*>([^<]*)", chart))) < 30
    assert LONG in chart
