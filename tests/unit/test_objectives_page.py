"""docs/objectives.md explains every key and every diagnostic, and names only tests that exist."""

import re
from dataclasses import fields
from pathlib import Path

import torch

from common.config import Objective
from learner.packs.batch import build_batch
from learner.step.breakdown import break_down, describe
from learner.step.metrics import PackingReport, StepMetrics
from learner.step.tally import Tally
from tests.exact_policies import loss_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "objectives.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    paths = list((ROOT / "tests").rglob("test_*.py"))
    files = {path.name for path in paths}
    everything = "\n".join(path.read_text() for path in paths)
    defined = set(re.findall(r"^def (test_\w+)", everything, flags=re.MULTILINE))

    named = re.findall(r"`(?:tests/\w+/)?(test_\w+)(\.py|\.\.\.)?`", PAGE)

    assert len(named) > 40
    for name, end in named:
        if end == ".py":
            assert f"{name}.py" in files, name
        elif end == "...":
            assert any(test.startswith(name) for test in defined), name
        else:
            assert name in defined, name


def test_the_table_of_tests_has_every_row_once() -> None:
    rows = re.findall(r"^\| (V\d+) \|", PAGE, flags=re.MULTILINE)

    assert rows == [f"V{number}" for number in range(1, 26)]


def test_every_key_of_the_configuration_is_explained() -> None:
    missing = [key.name for key in fields(Objective) if key.name not in PAGE]

    assert missing == []


def test_every_diagnostic_is_explained() -> None:
    advantages = torch.tensor([1.0, -1.0])
    result = loss_of(torch.zeros(2), torch.zeros(2), torch.arange(2), advantages)
    metrics = StepMetrics(
        version=0,
        batch=build_batch([], learner_version=0, objective=Objective()).summary,
        tally=Tally(actions=2.0, rho=2.0, rho_squared=2.0),
        updates=(),
        seconds=1.0,
        packing=PackingReport(budget=8),
        kinds=describe(break_down(result.verdicts, advantages)),
    )

    found = metrics.diagnostics()

    assert len(found) > 50
    for name in found:
        kind, slash, _ = name.partition("/")
        assert f"`{kind}{slash}`" in PAGE, name
