"""What docs/agent.md shows works: its programs, its settings, its template and its options."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from actors.agent.prompt import PromptTemplate
from actors.agent.stand_alone import stand_alone_config
from actors.agent.toolbox import ToolSet
from common.config_file import load_config
from launch.cli import main
from tests.chat_server import ChatServer, Script, replies

DOCS = Path("docs/agent.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)


def act(code: str) -> str:
    return f"<think>so</think><code>{code}</code>"


@pytest.mark.sandbox
@pytest.mark.parametrize(
    ("number", "script", "printed"),
    [
        (
            0,
            replies(act("submit_final_answer(250 * exchange_rate('USD') / 0.92)")),
            "250.0 submitted 1\n",
        ),
        (1, replies(act("submit_final_answer(2**61 - 1)")), "submit_final_answer(2**61 - 1)\n"),
    ],
    ids=["with a function as a tool", "as a stream, saved"],
)
def test_the_programs_run(number: int, script: Script, printed: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    with ChatServer(script) as server:
        program.write_text(blocks("python")[number].replace("http://127.0.0.1:8000/v1", server.url))
        done = subprocess.run(
            [sys.executable, program],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")
    if number == 1:
        notebook = nbformat.read(tmp_path / "answer.ipynb", as_version=4)
        assert notebook.metadata.lzero.answer == "2305843009213693951"


def test_the_settings_are_settings(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(blocks("toml")[0])

    config = load_config(tmp_path / "agent.toml", defaults=stand_alone_config())

    shown = tomllib.loads(blocks("toml")[0])
    assert config.agent.trim == shown["agent"]["trim"]
    assert config.model.max_context == shown["model"]["max_context"]
    assert config.agent.max_steps == stand_alone_config().agent.max_steps


def test_the_template_renders() -> None:
    agent = stand_alone_config().agent

    text = PromptTemplate(blocks("jinja")[0]).render(agent, ToolSet(agent, {}).specs, ["a.csv"])

    assert "submit_final_answer(answer" in text
    assert "You have 20 cells of 2000 tokens" in text
    assert "In /workspace: a.csv." in text


def test_every_option_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("agent", "export-notebook"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])

        for option in set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}:
            assert option in DOCS, option
