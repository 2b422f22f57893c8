"""A run's metrics are one line per step, also when an attempt got further than its checkpoint."""

import json
import logging
from pathlib import Path

import pytest

from common.telemetry import JsonlWriter, configure_logging


def write_steps(path: Path, steps: list[int]) -> None:
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))


def test_resumed_run_takes_out_lines_it_will_write_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [1, 2, 3])

    JsonlWriter(path, after_step=2).close()

    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write_steps(path, [1])
    path.write_text(path.read_text() + '{"step": 2, "lo')

    JsonlWriter(path, after_step=5).close()

    assert path.read_text() == '{"step": 1}\n'


def test_what_a_log_line_quotes_neither_steers_a_terminal_nor_begins_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    configure_logging("learner0")

    logging.getLogger("x").warning("actor %s left", "a\x1b[2J\u202e\n00:00:00 learner0 info fine")

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(" learner0 warning actor a\u241b[2J<U+202E>")
    assert lines[1] == "  | 00:00:00 learner0 info fine left"
