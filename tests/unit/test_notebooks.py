"""Episodes become valid notebooks, whichever record they come from, also an older version's."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from actors.evaluate import write_episodes
from common.errors import InputError
from common.visible import visible
from common.wire.records import Outcome, Step, Task, Trajectory
from launch.cli import main
from launch.notebooks.agent_view import Ending, LiveView, PlainView, split_growing
from launch.notebooks.export import make_notebook
from launch.notebooks.tracebacks import split_output
from launch.notebooks.transcripts import Choice, Transcript, find_transcript
from learner.coordination.store import TrajectoryStore
from tests.tiny_policy import make_trajectories

TRACEBACK = (
    "Traceback (most recent call last):\n  Cell In[2], line 1\n    f()\nValueError: first\nsecond\n"
)
SYNTAX = "  Cell In[2], line 1\n    x = = 2\n        ^\nSyntaxError: invalid syntax"
CHAINED = (
    "Traceback (most recent call last):\n  Cell In[1], line 2\n    1/0\n"
    "ZeroDivisionError: division by zero\n... caused by the exception above:\n"
    "Traceback (most recent call last):\n  Cell In[1], line 4\n    raise Bad\n__main__.Bad"
)


def step(code: str | None = "x", observation: str = "", **fields: Any) -> Step:
    action = f"<think>why</think><code>{code}</code>" if code is not None else "no *idea* ```"
    return Step(action=action, code=code, observation=observation, **fields)


def transcript(*steps: Step, **fields: Any) -> Transcript:
    given: dict[str, Any] = {"outcome": "submitted", "answer": "42"} | fields
    return Transcript(names=("t1",), question="What | is it?", steps=steps, **given)


def trajectory(number: int, reward: float, *, question: str = "What?") -> Trajectory:
    made = make_trajectories(groups=1, size=1, seed=number)[0]
    steps = tuple(
        step(f"print({n})", str(n), status="ok", tokens=4, seconds=0.25)
        for n in range(len(made.steps))
    )
    rewards = made.step_rewards * 0
    rewards[-1] = reward
    return replace(
        made,
        trajectory_id=f"lease-{number}",
        task_id=f"task-{number}",
        steps=steps,
        step_rewards=rewards,
        question=question,
        answer=f"answer {number}",
        scores={"exact_match": float(reward > 0.5)},
    )


def store(folder: Path, *trajectories: Trajectory) -> None:
    written = TrajectoryStore(folder / "trajectories", limit_bytes=1 << 20)
    for one in trajectories:
        written.append(one)
    written.close()


@pytest.mark.parametrize(
    ("status", "text", "printed", "error"),
    [
        ("ok", "1\n2", "1\n2", None),
        ("error", "1\n" + TRACEBACK, "1\n", ("ValueError", "first\nsecond")),
        ("error", SYNTAX, "", ("SyntaxError", "invalid syntax")),
        ("error", CHAINED, "", ("Bad", "")),
        ("", "1\n" + TRACEBACK, "1\n", ("ValueError", "first\nsecond")),
        ("", "it says Traceback (most recent call last):", None, None),
        ("ok", TRACEBACK, TRACEBACK, None),
        ("error", TRACEBACK[:60] + "…", "", ("Error", "")),
        ("error", "no traceback", "no traceback", ("Error", "the cell failed")),
        ("timed_out", "1", "1", ("TimeoutError", "the cell was interrupted")),
    ],
)
def test_an_observation_is_taken_apart(
    status: str, text: str, printed: str | None, error: tuple[str, str] | None
) -> None:
    output = split_output(step(observation=text, status=status))

    assert output.printed == (text if printed is None else printed)
    assert (output.error and (output.error.name, output.error.value)) == error


def test_no_text_of_a_model_or_a_task_does_anything_in_a_notebook() -> None:
    hostile = (
        "<script>alert(1)</script> <img src=x onerror=alert(1)> ![seen](http://tracker/?q) "
        "![seen][there] [click](javascript:alert(1)) [too] <!-- a < b -->\n\n"
        "[there]: http://tracker\n[too]: javascript:alert(1)\n"
    )
    think = Step(
        action=f"<think>{hostile}</think><code>1</code>", code="1", observation="", status="ok"
    )
    notebook = make_notebook(
        replace(
            transcript(think, answer=hostile, failure=hostile, details={"gold": hostile}),
            question=hostile,
        )
    )

    shown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert len(shown) == 3
    rendered = "".join(MarkdownIt("commonmark").enable("table").render(text) for text in shown)
    for tag in ("<script", "<img", "<a ", "<!--"):
        assert tag not in rendered
    assert rendered.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5
    assert rendered.count("![seen](http://tracker/?q)") == 5
    assert "a &lt; b" in rendered


def test_what_the_loop_appends_about_the_notepad_is_no_part_of_the_error() -> None:
    text = TRACEBACK.rstrip() + "\n[notepad]\nTo do:\n- x"
    output = split_output(step(observation=text, status="error"))

    assert output.error is not None
    assert output.error.value == "first\nsecond"
    assert output.appended == "To do:\n- x"


def test_a_notebook_holds_thoughts_cells_outputs_and_the_answer() -> None:
    notebook = make_notebook(
        transcript(
            step("print(1)", "1", status="ok", seconds=0.5, tool_calls=("search",)),
            step(None, "write a think block"),
            step("f()", "0\n" + TRACEBACK, status="error"),
            step("while True: pass", "", status="died"),
            scores={"f1": 0.25},
            reward=0.75,
            details={"gold answers": "a|b"},
        )
    )

    nbformat.validate(notebook)
    assert [(c.cell_type, c.get("execution_count")) for c in notebook.cells] == [
        ("markdown", None),
        ("markdown", None),
        ("code", 1),
        ("markdown", None),
        ("markdown", None),
        ("code", 2),
        ("markdown", None),
        ("code", 3),
        ("markdown", None),
    ]
    first, failed, died = (c for c in notebook.cells if c.cell_type == "code")
    assert first.outputs == [{"output_type": "stream", "name": "stdout", "text": "1"}]
    assert first.metadata.lzero.tool_calls == ["search"]
    assert [o.output_type for o in failed.outputs] == ["stream", "error"]
    assert failed.outputs[1].traceback == TRACEBACK.rstrip("\n").split("\n")
    assert died.outputs[0].ename == "KernelDiedError"
    assert "````text\nno *idea* ```\n````" in notebook.cells[3].source
    assert notebook.cells[-1].source.startswith("# Answer\n\n42\n")
    for row in ("| reward | 0.75 |", "| f1 | 0.25 |", r"| gold answers | a\|b |"):
        assert row in notebook.cells[-1].source
    assert notebook.metadata.kernelspec.name == "lzero-sandbox"


def test_a_direct_answer_stands_at_the_end_only() -> None:
    said = Step(action="<think>hm</think>42", code=None, observation="")

    notebook = make_notebook(transcript(said))

    assert [c.cell_type for c in notebook.cells] == ["markdown", "markdown"]


def test_an_episode_without_question_answer_or_steps_is_a_notebook_too() -> None:
    empty = Transcript(names=(), question="", steps=(), outcome="infrastructure", answer=None,
                       failure="KernelError: a|b")  # fmt: skip

    notebook = make_notebook(empty)

    assert "(not on record)" in notebook.cells[0].source
    assert r"| failure | KernelError: a\|b |" in notebook.cells[-1].source


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        (("--index", "1"), "lease-2"),
        (("--trajectory", "lease-3"), "lease-3"),
        (("--trajectory", "task-2"), "lease-2"),
        (("--best",), "lease-2"),
        (("--worst",), "lease-3"),
        ((), "lease-1"),
    ],
)
def test_any_trajectory_of_a_run_can_be_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: tuple[str, ...], name: str
) -> None:
    lost = replace(trajectory(9, 5.0), outcome=Outcome.INFRASTRUCTURE)
    store(tmp_path, trajectory(1, 0.5), trajectory(2, 1.0), trajectory(3, -0.1), lost)
    out = tmp_path / "deep" / "x.ipynb"

    status = main(["export-notebook", str(tmp_path), *choice, "--out", str(out)])

    notebook = nbformat.read(out, as_version=4)
    nbformat.validate(notebook)
    assert status == 0
    assert notebook.metadata.lzero.names[0] == name
    assert notebook.cells[0].source == "# Task\n\nWhat?"
    assert notebook.cells[2].outputs[0].text == "0"
    assert notebook.cells[2].metadata.lzero.seconds == 0.25
    assert f"wrote {name} (submitted) to {out}" in capsys.readouterr().out


def test_episodes_of_an_evaluation_can_be_exported(tmp_path: Path) -> None:
    tasks = [
        Task(task_id=f"q{n}", question=f"Who is {n}?", answers=("Ada",), files=("/tmp/a.csv",))
        for n in (1, 2)
    ]
    folder = tmp_path / "evaluation" / "after"
    folder.mkdir(parents=True)
    write_episodes(folder / "heldout.jsonl", tasks, [trajectory(1, 0.0), trajectory(2, 1.0)], 7)

    best = find_transcript(tmp_path, Choice(extreme="best"))
    named = find_transcript(folder / "heldout.jsonl", Choice(name="q1"))

    assert (best.names, best.question, best.reward) == (("q2",), "Who is 2?", None)
    assert best.details["weight version"] == "7"
    assert best.details["gold answers"] == "Ada"
    assert named.question == "Who is 1?"
    assert named.steps[0].seconds == 0.25


def test_a_record_of_an_older_version_gets_its_question_from_the_runs_tasks(
    tmp_path: Path,
) -> None:
    old_step = {
        "action": "<think>a</think><code>1/0</code>",
        "code": "1/0",
        "observation": "Traceback (most recent call last):\n  Cell In[1], line 1\n"
        "    1/0\nZeroDivisionError: division by zero",
        "tool_calls": [],
        "finish_reason": "stop",
    }
    record = {
        "trajectory_id": "lease-1",
        "task_id": "w0-1",
        "outcome": "out_of_steps",
        "answer": None,
        "scores": {},
        "step_rewards": [0.0],
        "steps": [old_step],
    }
    (tmp_path / "trajectories").mkdir()
    (tmp_path / "trajectories" / "part-00000.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "tasks").mkdir()
    tasks = [{"task_id": f"w0-{n}", "question": f"Question {n}?"} for n in (10, 1)]
    (tmp_path / "tasks" / "train.jsonl").write_text("\n".join(map(json.dumps, tasks)))

    found = find_transcript(tmp_path, Choice())
    notebook = make_notebook(found)

    assert found.question == "Question 1?"
    assert notebook.cells[2].outputs[0].ename == "ZeroDivisionError"


def test_the_folder_of_an_evaluation_stands_for_its_episodes(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("[1]\n")

    with pytest.raises(InputError, match=r"episodes\.jsonl line 1 is no episode"):
        find_transcript(tmp_path, Choice())


@pytest.mark.parametrize(
    ("text", "choice", "message"),
    [
        ("{}\n", (), "line 1 is no episode of a run or an evaluation: KeyError"),
        ("\n[1]\n", (), "line 2 is no episode"),
        ("", (), "has no episode 0"),
        ("", ("--best",), "has no finished episode"),
        ("", ("--trajectory", "x"), "has no trajectory and no task called 'x'"),
        (None, (), "is neither a file of episodes, nor a result of lzero eval"),
    ],
)
def test_what_cannot_be_exported_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    choice: tuple[str, ...],
    message: str,
) -> None:
    source = tmp_path / "episodes.jsonl"
    if text is not None:
        source.write_text(text)

    status = main(["export-notebook", str(source), *choice, "--out", str(tmp_path / "x.ipynb")])

    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.ipynb").exists()


def show(kind: type[LiveView] | type[PlainView]) -> str:
    """What a view writes for an episode of two steps."""
    console = Console(file=io.StringIO(), width=60, height=20, color_system=None)
    view = kind(console)
    for piece in ("<think>wh", "y</think><co", "de>print(1)\n", "print(2)"):
        view.on_delta(0, piece)
    view.on_action(0, "<think>why</think><code>print(1)\nprint(2)</code>", "print(1)\nprint(2)")
    view.on_step(0, step("print(1)", "1\n\x1b]0;owned\x07", status="ok"))
    view.on_action(1, "what?", None)
    view.on_step(1, step(None, "a reminder"))
    view.finish(Ending(answer=None, outcome="unparsable", failure="no", facts="2 steps"))
    view.close()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("kind", [LiveView, PlainView])
def test_a_view_shows_everything_and_obeys_no_escape_sequence(
    kind: type[LiveView] | type[PlainView],
) -> None:
    text = show(kind)

    for part in ("why", "print(1)", "␛]0;owned␇", "what?", "a reminder", "unparsable", "2 steps"):
        assert part in text
    assert "<think>" not in text
    assert "\x07" not in text


def test_a_live_view_shows_the_end_of_an_action_that_is_still_written() -> None:
    file = io.StringIO()
    view = LiveView(Console(file=file, force_terminal=True, width=60, height=20))

    view.on_delta(0, "<think>why\n" + "and\n" * 50 + "because</think><co")
    view.on_delta(0, "de>" + "\n".join(f"n{number}" for number in range(8)))
    view.close()

    shown = file.getvalue()
    assert "because" in shown
    assert "n0" in shown
    assert "n7" in shown
    assert "why" not in shown


def test_a_growing_action_falls_into_thoughts_and_code() -> None:
    assert split_growing("<think>a") == ("a", "")
    assert split_growing("<think>a</think><code>x = 1\n") == ("a", "x = 1")
    assert split_growing("a</think>\n<code>x</code>") == ("a", "x")
    assert split_growing("<think>in <code> tags</think><code>x") == ("in <code> tags", "x")


def test_control_characters_are_pictures() -> None:
    assert visible("a\tb\n\x1b[2J\x00\x7f\r\n\x9b") == "a\tb\n␛[2J␀␡\n␡"


def test_a_notebook_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path, trajectory(1, 0.5))

    assert main(["export-notebook", str(tmp_path), "--out", "/proc/x"]) == 2
    assert capsys.readouterr().err.startswith("lzero: /proc/x cannot be written: ")
