"""Progress is read from the metrics of the run, and shown as plain lines without a terminal."""

import dataclasses
import io
import json
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from common.telemetry.alert_lines import append_alert
from common.telemetry.step_record import StepRecord
from common.telemetry.writers import JsonlWriter
from launch.report.metrics_tail import LinesTail, read_metrics
from launch.report.progress import ProgressPanel
from launch.report.training_view import Training, describe_duration, describe_view, mean_staleness
from learner.coordination.counters import FailureLog
from tests.step_records import make_record as record


def append(path: Path, *records: StepRecord) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(dataclasses.asdict(r)) + "\n" for r in records)


def test_each_line_is_given_once_and_a_half_written_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = LinesTail(path)
    assert tail.read() == []
    append(path, record(1))
    line = json.dumps(dataclasses.asdict(record(2)))
    with path.open("a") as file:
        file.write(line[:20])

    first = tail.read()
    with path.open("a") as file:
        file.write(line[20:] + "\n")
    second = tail.read()

    assert [json.loads(text)["step"] for text in first] == [1]
    assert second == [line]
    assert tail.read() == []


def test_a_step_that_was_repeated_after_a_resume_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, record(1), record(2, reward=0.1), record(2, reward=0.9), record(3))

    records = read_metrics(path)

    assert [r.step for r in records] == [1, 2, 3]
    assert records[1].reward == 0.9


def test_a_field_of_a_later_version_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({**dataclasses.asdict(record(1)), "added_later": 1}) + "\n")

    assert read_metrics(path) == [record(1)]


def test_the_time_left_follows_the_pace_of_this_command() -> None:
    now = [100.0]
    training = Training(10, clock=lambda: now[0])
    training.add([record(1), record(2)], is_earlier=True)
    training.add([record(3)])
    now[0] = 112.0
    training.add([record(4), record(5)])

    view = training.view()

    assert view is not None
    assert view.step == 5
    assert view.eta_s == pytest.approx(5 * 6.0)


def test_right_after_a_resume_the_time_left_is_that_of_the_steps_before() -> None:
    training = Training(40)
    training.add([record(step) for step in range(1, 11)], is_earlier=True)

    view = training.view()

    assert view is not None
    assert view.eta_s == pytest.approx(30 * 2.0)


def test_dropped_is_what_the_run_dropped_and_not_a_sum_of_sums() -> None:
    training = Training(10)
    training.add([record(step, dropped={"late": 1}) for step in range(1, 8)])

    view = training.view()

    assert view is not None
    assert view.dropped == 1


def test_the_rate_is_that_of_the_steps_shown() -> None:
    training = Training(20)
    training.add([record(1, seconds=60.0, step_s=60.0)])
    training.add([record(step, seconds=60.0 + 2 * step) for step in range(2, 11)])

    view = training.view()

    assert view is not None
    assert view.trajectories_per_s == pytest.approx(4.0)


def test_steps_that_are_done_again_replace_the_earlier_ones() -> None:
    training = Training(20)
    training.add([record(step, reward=1.0) for step in range(1, 7)])
    training.add([record(4, reward=0.0), record(5, reward=0.0)])

    view = training.view()

    assert view is not None
    assert (view.step, view.reward) == (5, pytest.approx(3 / 5))


def test_a_run_that_learns_nothing_says_so_once_in_plain_lines(tmp_path: Path) -> None:
    path, screen = tmp_path / "metrics.jsonl", io.StringIO()

    with ProgressPanel(Console(file=screen, force_terminal=False)) as progress:
        progress.watch_training(path, 100)
        for step in range(1, 9):
            append(path, record(step, signal_share=0.0))
            progress.tick()

    said = [line for line in screen.getvalue().splitlines() if "nothing is learned" in line]
    assert len(said) == 1
    assert said[0].startswith("nothing is learned: in steps 1 to 4 no group had a signal")


def test_a_run_that_learns_nothing_says_so_in_the_panel(tmp_path: Path) -> None:
    path, screen = tmp_path / "metrics.jsonl", io.StringIO()

    with ProgressPanel(Console(file=screen, force_terminal=True, width=100)) as progress:
        progress.watch_training(path, 100)
        append(path, *(record(step, parsed_share=0.0) for step in range(1, 5)))
        progress.tick()

    assert "100% of the actions do not parse" in screen.getvalue()


def test_a_view_keeps_the_last_heldout_score_and_the_largest_staleness() -> None:
    training = Training(10)
    training.add([record(1, heldout={"one_hop": 0.3}, staleness={"2": 1}), record(2)])

    view = training.view()

    assert view is not None
    assert (view.heldout, view.staleness_max) == ({"one_hop": 0.3}, 2)
    said = "train=[one_hop 50%, two_hop 25%] heldout=[one_hop 30%] of step 1"
    assert said in describe_view(view)


@pytest.mark.parametrize(
    ("oldest", "newest", "said"), [(4, 4, "version 4"), (4, 7, "versions 4 to 7")]
)
def test_a_heldout_score_says_of_which_weights_it_is(oldest: int, newest: int, said: str) -> None:
    training = Training(10)
    versions = {"oldest": oldest, "newest": newest}
    training.add([record(8, heldout={"one_hop": 0.3}, heldout_versions=versions)])

    view = training.view()

    assert view is not None
    assert f"heldout=[one_hop 30%] of {said} " in describe_view(view)


def test_nothing_is_shown_before_the_first_step() -> None:
    assert Training(10).view() is None


def test_a_number_that_is_not_finite_is_strict_json_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path, after_step=0)

    writer.write(record(1, grad_norm=float("inf"), diagnostics={"k3": float("nan")}))
    writer.close()

    json.loads(path.read_text(), parse_constant=pytest.fail)
    (back,) = read_metrics(path)
    assert back.grad_norm == float("inf")
    assert back.diagnostics["k3"] != back.diagnostics["k3"]


def test_mean_staleness_weighs_by_actions() -> None:
    assert mean_staleness([{"0": 2, "3": 1}, {"1": 1}]) == 1.0
    assert mean_staleness([]) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.4, "4 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text


def test_without_a_terminal_there_is_a_plain_line_every_few_steps(tmp_path: Path) -> None:
    path, screen = tmp_path / "metrics.jsonl", io.StringIO()
    console = Console(file=screen, force_terminal=False)

    with ProgressPanel(console) as progress:
        progress.phase("training")
        progress.watch_training(path, 100)
        for step in range(1, 101):
            append(path, record(step))
            progress.tick()

    lines = screen.getvalue().splitlines()
    assert lines[0] == "training ..."
    assert len(lines) == 1 + 20
    assert lines[-1].startswith("step 100/100 train=[one_hop 50%")


def test_on_a_terminal_a_panel_shows_step_success_and_time_left(tmp_path: Path) -> None:
    path, screen = tmp_path / "metrics.jsonl", io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)

    with ProgressPanel(console) as progress:
        progress.phase("training")
        progress.watch_training(path, 10)
        append(path, record(3, heldout={"one_hop": 0.75}))
        progress.tick()

    text = screen.getvalue()
    for words in ("L-Zero", "3 of 10", "one_hop 50%", "one_hop 75% (step 3)", "ETA"):
        assert words in text


@pytest.mark.parametrize("is_terminal", [False, True])
def test_names_from_outside_cannot_steer_the_terminal(tmp_path: Path, is_terminal: bool) -> None:
    path, screen = tmp_path / "metrics.jsonl", io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=100)
    family = "one\x1b]0;pwned\x07\u202e[bold]"

    with ProgressPanel(console) as progress:
        progress.watch_training(path, 1)
        append(path, record(1, family_success={family: 0.5}))
        progress.tick()
        progress.say(f"actor {family} left")

    assert "\x1b]0" not in screen.getvalue()
    assert "\u202e" not in screen.getvalue()
    assert screen.getvalue().count("one\u241b]0;pwned\u2407<U+202E>[bold]") >= 2


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_the_learner_tells_before_any_step_is_said_once(
    tmp_path: Path, is_terminal: bool
) -> None:
    alerts, screen = tmp_path / "alerts.jsonl", io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal, width=100)
    append_alert(alerts, "of an earlier attempt")

    with ProgressPanel(console) as progress:
        progress.watch_alerts(alerts)
        failures = FailureLog(partial(append_alert, alerts))
        for _ in range(6):
            for _ in range(3):
                failures.failed("infrastructure:PluginError", "reward term 'mine': KeyError")
                progress.tick()
            failures.succeeded()

    said = "3 episodes in a row failed (infrastructure:PluginError): reward term 'mine': KeyError"
    assert screen.getvalue().count(said) == 1
    assert "earlier" not in screen.getvalue()


def test_restarts_of_this_attempt_are_noted_once(tmp_path: Path) -> None:
    restarts, noted = tmp_path / "restarts.jsonl", list[str]()
    append_alert(restarts, "of an earlier attempt")

    with ProgressPanel(Console(file=io.StringIO())) as progress:
        progress.watch_restarts(restarts, noted.append)
        for text in ("first", "second"):
            append_alert(restarts, text)
            progress.tick()
            progress.tick()

    assert noted == ["first", "second"]


def test_lines_that_are_no_alerts_are_passed_over(tmp_path: Path) -> None:
    alerts, screen = tmp_path / "alerts.jsonl", io.StringIO()

    with ProgressPanel(Console(file=screen, force_terminal=False)) as progress:
        progress.watch_alerts(alerts)
        alerts.write_text('null\n{"text": 3}\n{"text": "a", "text": "b"}\n{\n')
        append_alert(alerts, "true")
        progress.tick()

    assert screen.getvalue() == "true\n"
