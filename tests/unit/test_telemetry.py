"""A run's metrics are one line per step, also when an attempt got further than its checkpoint."""

import json
import logging
from pathlib import Path

import pytest

from common.errors import ConfigError
from common.telemetry.log_lines import configure_logging
from common.telemetry.writers import JsonlWriter, Tolerant, wandb_id, wandb_project


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


def test_every_run_folder_has_one_wandb_id_of_its_own(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()

    assert wandb_id(first) == wandb_id(first)
    assert wandb_id(first) != wandb_id(second)
    assert not set(wandb_id(first)) & set(":;,#?/'")


class Broken:
    def __init__(self, *, when: str) -> None:
        self.when, self.calls = when, 0
        self.act("start")

    def act(self, what: str) -> None:
        self.calls += 1
        if what == self.when:
            raise RuntimeError(f"the service refused to {what}")

    def write(self, record: object) -> None:
        self.act("write")

    def close(self) -> None:
        self.act("close")


@pytest.mark.parametrize("when", ["start", "write", "close"])
def test_a_service_that_fails_is_named_once_and_ends_nothing(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Tolerant("wandb", lambda: Broken(when=when))

    for _ in range(2):
        writer.write(None)  # type: ignore[arg-type]
    writer.close()

    (line,) = caplog.messages
    assert f"name=wandb doing={when} error=RuntimeError: the service refused to {when}" in line


def test_a_project_name_that_wandb_refuses_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "a/b")

    with pytest.raises(ConfigError, match=r"WANDB_PROJECT must be .* got 'a/b'"):
        wandb_project()
