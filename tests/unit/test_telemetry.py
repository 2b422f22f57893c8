"""A run's metrics are one line per step, also when an attempt got further than its checkpoint."""

import json
from pathlib import Path

from common.telemetry import JsonlWriter


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
