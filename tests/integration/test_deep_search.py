"""What docs/deep_search.md shows works word for word, without keys; its record is made again."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pytest

from actors.agent.stand_alone import stand_alone_config
from common.config_file import load_config
from tests.chat_server import ChatServer, replies
from tests.deep_search import EXAMPLE, KEY, question_of_the_example, record

pytestmark = pytest.mark.sandbox

DOCS = (EXAMPLE.parents[1] / "deep_search.md").read_text(encoding="utf-8")
KEYS = ("SERPER_API_KEY", "JINA_API_KEY", "OPENAI_API_KEY")
ANSWER = "HB 41"


@pytest.fixture(autouse=True)
def scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)


def run_as_shown(first: str, folder: Path, url: str = "") -> subprocess.CompletedProcess[str]:
    """The page's command that begins so, in a folder like the clone, without any key.

    The server that it names is at ``url``.
    """
    (command,) = [line.strip() for line in DOCS.splitlines() if line.startswith(f"    {first} ")]
    (folder / "docs").symlink_to(Path("docs").resolve())
    environment = {name: value for name, value in os.environ.items() if name not in KEYS}
    return subprocess.run(
        shlex.split(command.replace("http://127.0.0.1:8000/v1", url)),
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_example_is_played_without_keys(tmp_path: Path) -> None:
    done = run_as_shown("python", tmp_path)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"answer:\n    {ANSWER}\n" in done.stdout
    notebook = nbformat.read(tmp_path / "deep_search.ipynb", as_version=4)
    assert notebook.metadata.lzero.answer == ANSWER
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert question_of_the_example() in notebook.cells[0].source


@pytest.mark.nightly
def test_its_record_is_what_the_agent_meets_at_servers_of_these_protocols(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS[:2]:
        monkeypatch.setenv(name, KEY)

    episode = record(question_of_the_example(), tmp_path)

    assert episode.answer == ANSWER
    assert [step.status for step in episode.steps[:-1]] == ["ok"] * 6
    used = {name for step in episode.steps for name in step.tool_calls}
    assert {"search", "read_page", "archive.find", "notepad.add_fact"} <= used
    assert entries(tmp_path) == entries(EXAMPLE / "web")


def entries(folder: Path) -> dict[str, Any]:
    """Requests and answers of a record by file, without the time."""
    read = {file: json.loads(file.read_text(encoding="utf-8")) for file in folder.rglob("*.json")}
    return {
        str(file.relative_to(folder)): (entry["request"], entry["response"])
        for file, entry in read.items()
    }


def test_the_two_files_differ_in_the_web_alone() -> None:
    live, replay = (
        load_config(EXAMPLE / f"{name}.toml", defaults=stand_alone_config())
        for name in ("live", "replay")
    )

    assert replay.tools.web.cache_mode == "replay"
    web = replace(
        replay.tools.web, cache=live.tools.web.cache, cache_mode=live.tools.web.cache_mode
    )
    assert replace(replay, tools=replace(replay.tools, web=web)) == live


def test_with_the_live_file_a_missing_key_is_named_before_the_model_is_asked(
    tmp_path: Path,
) -> None:
    with ChatServer(replies("never asked")) as server:
        done = run_as_shown("lzero", tmp_path, server.url)

    assert server.requests == []

    assert done.returncode == 2
    assert "SERPER_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1
