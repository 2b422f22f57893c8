"""The summary holds what was promised, and the report shows it without outside resources."""

import dataclasses
import io
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.config import Config, Run, World
from common.episode_record import read_evaluation
from common.errors import RunError
from common.evaluation import FamilyScore, Suite, SuiteScore, write_score
from common.telemetry.process_totals import (
    ActorTotals,
    LearnerTotals,
    LogprobMismatch,
    StalenessTotals,
    TrajectoryCounts,
    add_actor_totals,
    write_totals,
)
from common.wire.records import Step
from launch.real.records import write_records
from launch.real.stages import Stage, StageRecord
from launch.report.charts import line_chart, paired_bars, ticks
from launch.report.closing import facts, print_summary, score_tables
from launch.report.page import choose_pairs, describe_step, write_report
from launch.report.summary import Summary, build_summary, compare, current_commit, write_summary
from launch.report.three_points import three_points_tables
from launch.run.folder import RunFolder, RunState
from tests.step_records import make_record

TOTALS = LearnerTotals(
    steps=4,
    ranks=2,
    weight_versions=5,
    rl_seconds=12.5,
    idle_fraction=0.25,
    paused_seconds=0.5,
    trajectories=TrajectoryCounts(
        started=70, finished=66, trained=64, dropped={"stale": 2}, open=4
    ),
    staleness=StalenessTotals(bound=3, max=2, mean=0.75, histogram={"0": 60, "1": 70, "2": 10}),
    logprob_mismatch=LogprobMismatch(mean_abs=3e-7, max_abs=2e-5, tokens=512),
    tokens_generated=1800,
    cells_executed=160,
)
ACTOR = ActorTotals(
    launcher="forked",
    kernel_level="A-forked",
    kernels_started=40,
    requests=80,
    request_retries=0,
    tokens_generated=900,
    resent=0,
)
CONFIG = Config(run=Run(name="trial<&", seed=3), world=World(enabled=True))


def score(name: str, exact: float) -> SuiteScore:
    family = FamilyScore(
        n=10, exact_match=exact, contains=exact, f1=exact, submitted=1.0, mean_steps=2.0
    )
    return SuiteScore(
        suite=Suite(name=name, tasks="t", corpus="c"),
        weight_version=0,
        seconds=1.0,
        families={"one_hop": family, "two_hop": family},
    )


def episode(name: str, *, exact: bool, version: int) -> dict[str, Any]:
    code = 'print(search("Silent Harbor novel"))'
    return {
        "task": {
            "task_id": name,
            "question": "Who wrote <Silent Harbor>?",
            "answers": ["Anna Keller"],
            "labels": {"family": "one_hop"},
        },
        "outcome": "submitted",
        "answer": "Anna Keller" if exact else "nobody",
        "scores": {"exact_match": float(exact)},
        "weight_version": version,
        "steps": [
            {
                "action": f"<think>search</think><code>{code}</code>",
                "code": code,
                "observation": "Silent Harbor, novel by Anna Keller.",
                "tool_calls": ["search"],
            }
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path / "trial")
    for when, exact in (("before", 0.25), ("after", 0.875)):
        out = run.evaluation / when
        out.mkdir(parents=True)
        write_score(score("heldout", exact), out / "heldout.json")
        lines = [episode(f"q{n}", exact=when == "after" and n < 3, version=4) for n in range(4)]
        (out / "heldout.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_score(score("control", 0.0), run.evaluation / "after" / "control.json")
    add_actor_totals("a0", ACTOR, folder=run.actors)
    joined = dataclasses.replace(ACTOR, request_retries=1)
    add_actor_totals("a1", joined, folder=run.actors)
    write_totals(TOTALS, run.learner_totals)
    write_metrics(run, signal_share=1.0)
    return run


def write_untouched(run: RunFolder) -> None:
    """As ``lzero real`` leaves it: the model was asked as it came, after two stages."""
    run.untouched.mkdir(parents=True)
    write_score(score("heldout", 0.1), run.untouched / "heldout.json")
    (run.untouched / "heldout.jsonl").write_text(json.dumps(episode("q", exact=False, version=0)))
    made = {
        Stage.TRACES: StageRecord(fingerprint="f", finished=True, seconds=2.0),
        Stage.WARM_START: StageRecord(fingerprint="f", finished=True, seconds=30.0),
    }
    write_records(run.prepared, made)


def write_metrics(run: RunFolder, **changes: Any) -> None:
    records = [
        make_record(n, heldout={"one_hop": 0.5}, family_success={"one_hop": n / 4}, **changes)
        for n in range(1, 5)
    ]
    lines = [json.dumps(dataclasses.asdict(record)) + "\n" for record in records]
    run.metrics.write_text("".join(lines))


def test_a_run_that_learned_nothing_says_so_in_summary_screen_and_report(folder: RunFolder) -> None:
    assert summarise(folder).alerts == ()
    write_metrics(folder, signal_share=0.0, parsed_share=0.0)
    screen = io.StringIO()

    summary = summarise(folder)
    print_summary(summary, folder, Console(file=screen, width=100))
    write_report(folder, CONFIG, summary)

    assert [alert[:60] for alert in summary.alerts] == [
        "nothing is learned: in steps 1 to 4 100% of the actions do n",
        "nothing is learned: in steps 1 to 4 no group had a signal: a",
    ]
    for alert in summary.alerts:
        assert f"alert              {alert}" in screen.getvalue()
        assert escape(alert[1:]) in folder.report.read_text()


def test_checkpoints_that_could_not_be_written_are_in_the_summary(folder: RunFolder) -> None:
    failed = dataclasses.replace(TOTALS, failed_saves=3, last_failed_save="c: No space left")
    write_totals(failed, folder.learner_totals)

    assert summarise(folder).alerts == (
        "checkpoints were not written in 3 saves; the last of them: c: No space left",
    )


def summarise(folder: RunFolder) -> Summary:
    state = RunState(
        status="running",
        started_at=0.0,
        seconds={"learn": 20.0, "total": 60.0},
        setup_seconds=90.0,
    )
    return build_summary(folder, CONFIG, state)


def test_no_text_of_the_report_reorders_a_line() -> None:
    told = describe_step(Step(action="<think>\u202eevil</think>", code=None, observation="\x1b[2J"))

    assert "&lt;U+202E&gt;evil" in told
    assert "\u241b[2J" in told


def test_the_summary_has_every_promised_number(folder: RunFolder) -> None:
    summary = dataclasses.asdict(summarise(folder))

    assert summary["status"] == "finished"
    assert (summary["seed"], summary["weight_versions"]) == (3, 5)
    assert summary["commit"] == current_commit()
    assert summary["wall_seconds"] == {
        "setup": 90.0,
        "warm_start": 0.0,
        "rl": 12.5,
        "total": 150.0,
        "phases": {"learn": 20.0},
    }
    assert summary["heldout"]["two_hop"] == {"n": 10, "before": 0.25, "after": 0.875}
    assert summary["search_disabled"]["one_hop"] == {"n": 10, "before": None, "after": 0.0}
    assert summary["trajectories"] == dataclasses.asdict(TOTALS.trajectories)
    assert summary["staleness"] == dataclasses.asdict(TOTALS.staleness)
    assert summary["logprob_mismatch"] == dataclasses.asdict(TOTALS.logprob_mismatch)
    assert summary["sandbox"] == {
        "launcher": "forked",
        "level": "A-forked",
        "kernels_started": 80,
        "cells_executed": 160,
    }
    assert summary["learner"] == {"ranks": 2, "idle_fraction": 0.25, "steps": 4}
    assert summary["policy_server"]["engine"] == "vllm"
    assert summary["policy_server"]["tokens_generated"] == 1800
    assert summary["policy_server"]["requests"] == 160
    assert summary["policy_server"]["request_retries"] == 1
    assert summary["actors"] == ("a0", "a1")
    assert summary["strategies"]["after"]["one_hop"] == {"searched a name and a topic": 1.0}


def test_a_written_summary_is_json(folder: RunFolder) -> None:
    write_summary(summarise(folder), folder.summary)

    assert json.loads(folder.summary.read_text())["heldout"]["one_hop"]["after"] == 0.875


def test_a_run_without_learner_totals_has_no_summary(folder: RunFolder) -> None:
    folder.learner_totals.unlink()

    with pytest.raises(RunError, match=r"the learner ended without writing"):
        summarise(folder)


def test_totals_of_an_actor_that_are_damaged_are_named(folder: RunFolder) -> None:
    (folder.actors / "a1.json").write_text("")

    with pytest.raises(RunError, match=r"a1\.json has no totals of an actor: .*; move it away"):
        summarise(folder)


def test_a_family_that_was_asked_only_once_has_one_number() -> None:
    pairs = compare({}, {"heldout": score("heldout", 0.5)}, "heldout", "exact_match")

    assert (pairs["one_hop"].before, pairs["one_hop"].after) == (None, 0.5)
    assert compare({}, {}, "heldout", "exact_match") == {}


def test_the_final_table_leaves_out_what_was_not_measured(folder: RunFolder) -> None:
    summary = summarise(folder)

    titles = [title for title, _ in score_tables(summary)]
    assert titles == ["sampled, exact", "sampled, contained", "search switched off"]
    assert dict(facts(summary))["actors"] == "2, which asked 160 times for 1800 tokens"
    assert dict(facts(summary))["trajectories"] == "64 trained of 70; dropped: stale 2"


def test_the_report_is_self_contained_and_escapes_what_it_shows(folder: RunFolder) -> None:
    write_report(folder, CONFIG, summarise(folder))

    page = folder.report.read_text()
    assert "trial&lt;&amp;" in page
    assert "Who wrote &lt;Silent Harbor&gt;?" in page
    assert "25% → 88%" in page
    assert page.count("<svg") == 4
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?:", page)
    assert "$" not in page.split("<h2>Everything else")[0]


def test_repaired_questions_are_shown_before_one_that_is_still_wrong(folder: RunFolder) -> None:
    before, after = (
        read_evaluation(folder.evaluation / when / "heldout.jsonl") for when in ("before", "after")
    )

    chosen = choose_pairs(list(zip(before, after, strict=True)), per_family=2)

    assert [late.task.task_id for _, late in chosen] == ["q0", "q1", "q3"]


def test_an_action_that_does_not_parse_is_shown_as_it_is() -> None:
    shown = describe_step(Step(action="just <words>", code=None, observation=""))

    assert "just &lt;words&gt;" in shown


def test_charts_of_nothing_are_empty() -> None:
    assert line_chart([], title="t", x_label="x") == ""
    assert paired_bars({}, {"rare": 0.001}, title="t") == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 40, [0, 10, 20, 30, 40]), (2, 2, [2])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, about=5) == pytest.approx(expected)


def test_suites_of_ones_own_are_summed_up_and_shown_like_the_others(folder: RunFolder) -> None:
    for when, exact in (("before", 0.5), ("after", 0.75)):
        write_score(score("mine", exact), folder.evaluation / when / "mine.json")

    summary = summarise(folder)
    write_report(folder, CONFIG, summary)

    assert set(summary.suites) == {"mine"}
    pair = summary.suites["mine"]["one_hop"]
    assert (pair.before, pair.after) == (0.5, 0.75)
    assert score_tables(summary)[-1][0] == "mine, exact"
    assert "mine, exact" in folder.report.read_text()


def test_a_pretrained_model_is_shown_at_three_points_with_what_was_done_before(
    folder: RunFolder,
) -> None:
    write_untouched(folder)
    screen = io.StringIO()

    summary = summarise(folder)
    print_summary(summary, folder, Console(file=screen, width=160))
    write_report(folder, CONFIG, summary)

    assert summary.untouched["one_hop"].before == 0.1
    assert summary.wall_seconds.warm_start == 30.0
    assert summary.wall_seconds.phases == {"write traces": 2.0, "learn": 20.0}
    assert summary.wall_seconds.total == 182.0
    page = folder.report.read_text()
    assert (
        "<td>two-hop</td><td>10.0% (2% to 40%, n 10)</td><td>25.0% (8% to 56%, n 10)</td>"
        "<td>87.5% (57% to 97%, n 10)</td>"
    ) in page
    assert "<td>one-hop: searched a name and a topic</td><td>100%</td>" in page
    assert re.search(r"as it came ┃ +after the warm start ┃ +after training", screen.getvalue())


def test_a_run_of_another_command_has_no_such_tables(folder: RunFolder) -> None:
    summary = summarise(folder)
    write_report(folder, CONFIG, summary)

    assert "as it came" not in folder.report.read_text()
    assert not list(three_points_tables(summary))
