"""Writes an episode as a Jupyter notebook: thoughts as text, actions as cells, with their outputs.

The cells can be run again, but for what only the host has: the tools. The notebook asks for the
kernel of the sandbox, because a model wrote its code.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode, v4

from common.chat import parse_action
from common.wire.records import Step
from launch.notebooks.tracebacks import CellError, split_output
from launch.notebooks.transcripts import Transcript

KERNELSPEC = "lzero-sandbox"
"""Jupyter kernel of the sandbox; docs/sandbox.md says how to install it."""

_KERNEL_NAME = "Python (L-Zero sandbox)"
_ACTIVE = re.compile(r"<(?=[A-Za-z/!?])|(?<=!)\[|(?<=\])[(:]")
"""What begins HTML, an image, the target of a link or its definition."""
_ENTITIES = {"<": "&lt;", "[": "&#91;", "(": "&#40;", ":": "&#58;"}
_DIED = CellError(name="KernelDiedError", value="the kernel died in this cell", traceback="")


def save_notebook(transcript: Transcript, path: Path | str) -> None:
    """Write ``transcript`` as a notebook of format 4; it is checked against the format's schema."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text: str = nbformat.writes(make_notebook(transcript))
    path.write_bytes(text.encode("utf-8", "replace") + b"\n")


def make_notebook(transcript: Transcript) -> NotebookNode:
    """The notebook of an episode, valid by nbformat."""
    cells = [_markdown("task", f"# Task\n\n{_inert(transcript.question) or '(not on record)'}")]
    executed = 0
    for number, step in enumerate(transcript.steps):
        executed += step.code is not None
        if _is_answer(step, transcript):
            continue  # it stands at the end
        cells += _step_cells(number, step, executed)
    cells.append(_markdown("result", _result(transcript)))
    notebook = v4.new_notebook(cells=cells, metadata=_metadata(transcript))
    nbformat.validate(notebook)
    return notebook


def _is_answer(step: Step, transcript: Transcript) -> bool:
    """Whether the action is the answer itself, as in direct mode."""
    answer = transcript.answer
    return step.code is None and answer is not None and step.action.strip().endswith(answer)


def _step_cells(number: int, step: Step, executed: int) -> Iterator[NotebookNode]:
    action = parse_action(step.action)
    if step.code is None:
        yield _markdown(f"step-{number}", _without_code(step))
        return
    think = action.think.strip() if action is not None else ""
    if think:
        yield _markdown(f"step-{number}-think", _inert(think))
    cell = v4.new_code_cell(
        source=step.code,
        execution_count=executed,
        outputs=list(_outputs(step)),
        metadata={"lzero": _facts(step)},
    )
    cell["id"] = f"step-{number}-code"
    yield cell


def _without_code(step: Step) -> str:
    """An action that holds no cell: what was written, and what came back."""
    parts = ["*No cell in this action:*", _fence(step.action)]
    if step.observation:
        parts += ["*It was answered:*", _fence(step.observation)]
    return "\n\n".join(parts)


def _outputs(step: Step) -> Iterator[NotebookNode]:
    output = split_output(step)
    if output.printed:
        yield v4.new_output("stream", name="stdout", text=output.printed)
    error = _DIED if step.status == "died" else output.error
    if error is not None:
        lines = error.traceback.rstrip("\n").split("\n") if error.traceback else []
        yield v4.new_output(
            "error", ename=error.name, evalue=error.value, traceback=lines or [error.value]
        )
    if output.appended:
        yield v4.new_output("stream", name="stdout", text=f"[notepad]\n{output.appended}")


def _facts(step: Step) -> NotebookNode:
    return NotebookNode(
        status=step.status,
        seconds=round(step.seconds, 4),
        tokens=step.tokens,
        finish_reason=step.finish_reason,
        tool_calls=list(step.tool_calls),
    )


def _result(transcript: Transcript) -> str:
    ending = transcript.outcome.replace("_", " ")
    answer = "(none)" if transcript.answer is None else _inert(transcript.answer)
    lines = ["# Answer", "", answer, ""]
    lines += ["| | |", "|---|---|", f"| outcome | {_cell(ending)} |"]
    if transcript.failure:
        lines.append(f"| failure | {_cell(transcript.failure)} |")
    if transcript.reward is not None:
        lines.append(f"| reward | {transcript.reward:.4g} |")
    lines += [f"| {_cell(name)} | {value:.4g} |" for name, value in transcript.scores.items()]
    lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in transcript.details.items()]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(_inert(text).replace("|", r"\|").split())


def _metadata(transcript: Transcript) -> NotebookNode:
    return NotebookNode(
        kernelspec=NotebookNode(name=KERNELSPEC, display_name=_KERNEL_NAME, language="python"),
        language_info=NotebookNode(name="python", file_extension=".py", mimetype="text/x-python"),
        lzero=NotebookNode(
            names=list(transcript.names),
            question=transcript.question,
            answer=transcript.answer,
            outcome=transcript.outcome,
            reward=transcript.reward,
        ),
    )


def _markdown(name: str, text: str) -> NotebookNode:
    cell = v4.new_markdown_cell(source=text)
    cell["id"] = name
    return cell


def _inert(text: str) -> str:
    """``text`` of a model or a task as Markdown that shows it and does nothing.

    HTML would run scripts, images would tell a server who reads the notebook, and a link can be a
    script; not every program that shows a notebook cleans it. Emphasis, lists and formulas stay.
    """
    return _ACTIVE.sub(lambda found: _ENTITIES[found.group()], text)


def _fence(text: str) -> str:
    """A Markdown fence longer than any in ``text``."""
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}text\n{text}\n{ticks}"
