"""``lzero agent``."""

import argparse
import dataclasses
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launch.commands import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from actors.agent.events import Episode
    from actors.agent.notebook_agent import NotebookAgent
    from common.config import Config
    from common.errors import InputError
    from common.wire.records import Step
    from launch.notebooks.agent_view import AgentView
    from launch.notebooks.transcripts import Transcript

EXIT_ANSWERED, EXIT_NO_ANSWER = 0, 1


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe ``lzero agent``."""
    parser = commands.add_parser(
        "agent", help="let a model answer a question by working in a sandboxed notebook"
    )
    parser.add_argument("question", help="what to do; - reads it from standard input")
    server = parser.add_argument_group("server")
    server.add_argument("--model", default="", help="name of the model; default: the only one")
    server.add_argument(
        "--url", default="", help="OpenAI-compatible server, e.g. http://HOST:8000/v1"
    )
    server.add_argument("--key-env", default="", help="environment variable with the API key")
    agent = parser.add_argument_group("agent")
    agent.add_argument("--mode", choices=("agent", "direct"), help="direct: one answer, no cells")
    agent.add_argument("--tools", help="names of the notebook's tools, separated by commas")
    agent.add_argument("--file", action="append", default=[], type=Path, help="attach this file")
    agent.add_argument("--corpus", default="", help="index for search, made by lzero index")
    agent.add_argument("--system-prompt", help="path of a template; docs/agent.md")
    agent.add_argument("--max-steps", type=int, help="cells at most (default 20)")
    agent.add_argument("--max-action-tokens", type=int, help="tokens per action (default 2000)")
    agent.add_argument("--temperature", type=float, help="of the sampling (default 0.6)")
    agent.add_argument("--config", type=Path, help="TOML or JSON file with everything else")
    output = parser.add_argument_group("output")
    output.add_argument("--out", help="notebook to write; default: agent-DATE-TIME.ipynb here")
    output.add_argument(
        "--json", action="store_true", help="print the episode as JSON; show the work on stderr"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run it; 0 with an answer, 1 without, 130 where Ctrl-C ended it."""
    from rich.console import Console

    from launch.notebooks.agent_view import make_view
    from launch.notebooks.transcripts import transcript_of
    from launch.outputs import check_output_file

    question = sys.stdin.read() if arguments.question == "-" else arguments.question
    notebook = Path(arguments.out or time.strftime("agent-%Y%m%d-%H%M%S.ipynb"))
    config = _config(arguments)
    check_output_file(notebook)
    direct = (arguments.mode or config.agent.mode) == "direct"
    view = _Recorder(make_view(Console(stderr=arguments.json), direct=direct))
    logging.getLogger("actors.agent.loop").setLevel(logging.ERROR)  # the view says what failed
    started = time.monotonic()
    try:
        episode = _agent(arguments, config).run(question, arguments.file, listener=view)
    except KeyboardInterrupt:
        if view.steps:
            _save(_interrupted(question, view.steps), notebook)
        return EXIT_INTERRUPTED
    finally:
        view.close()
    fault = _fault_of_saving(transcript_of(episode, question), notebook)
    view.finish(episode, time.monotonic() - started, None if fault else notebook)
    if arguments.json:
        _print_json(_as_json(episode, None if fault else notebook))
    if fault:
        raise fault  # after the work, which must not be lost
    return EXIT_ANSWERED if episode.answer is not None else EXIT_NO_ANSWER


def _config(arguments: argparse.Namespace) -> "Config":
    from actors.agent.stand_alone import stand_alone_config
    from common.config_file import load_config

    config = stand_alone_config()
    if arguments.config is None:
        return config
    return load_config(arguments.config, defaults=config)


def _agent(arguments: argparse.Namespace, config: "Config") -> "NotebookAgent":
    from actors.agent.notebook_agent import NotebookAgent
    from common.errors import ConfigError

    if arguments.key_env and arguments.key_env not in os.environ:
        raise ConfigError(f"--key-env: the environment has no variable {arguments.key_env}")
    return NotebookAgent(
        arguments.model,
        base_url=arguments.url,
        api_key=os.environ.get(arguments.key_env, ""),
        tools=_names(arguments.tools),
        corpus=arguments.corpus,
        mode=arguments.mode,
        system_prompt=arguments.system_prompt,
        max_steps=arguments.max_steps,
        max_action_tokens=arguments.max_action_tokens,
        temperature=arguments.temperature,
        config=config,
    )


class _Recorder:
    """Passes an episode on to a view, and keeps its steps in case it is interrupted."""

    def __init__(self, view: "AgentView") -> None:
        self._view = view
        self.steps: list[Step] = []

    def on_delta(self, step: int, text: str) -> None:
        self._view.on_delta(step, text)

    def on_action(self, step: int, text: str, code: str | None) -> None:
        self._view.on_action(step, text, code)

    def on_step(self, number: int, step: "Step") -> None:
        self.steps.append(step)
        self._view.on_step(number, step)

    def close(self) -> None:
        self._view.close()

    def finish(self, episode: "Episode", seconds: float, notebook: Path | None) -> None:
        from launch.notebooks.agent_view import Ending

        facts = (
            f"{len(episode.steps)} steps, {episode.tokens_generated} tokens, {seconds:.1f} s, "
            + (f"written to {notebook}" if notebook else "not written")
        )
        outcome = episode.outcome.value.replace("_", " ")
        self._view.finish(
            Ending(answer=episode.answer, outcome=outcome, failure=episode.failure, facts=facts)
        )


def _names(tools: str | None) -> tuple[str, ...] | None:
    if tools is None:
        return None
    return tuple(name.strip() for name in tools.split(",") if name.strip())


def _interrupted(question: str, steps: "Sequence[Step]") -> "Transcript":
    from launch.notebooks.transcripts import Transcript

    return Transcript(
        names=(), question=question, steps=tuple(steps), outcome="interrupted", answer=None
    )


def _save(transcript: "Transcript", path: Path) -> None:
    from launch.notebooks.export import save_notebook
    from launch.outputs import written

    with written(path):
        save_notebook(transcript, path)


def _fault_of_saving(transcript: "Transcript", path: Path) -> "InputError | None":
    from common.errors import InputError

    try:
        _save(transcript, path)
    except InputError as error:
        return error
    return None


def _print_json(record: Mapping[str, Any]) -> None:
    """Print valid JSON whatever a model wrote and whatever the terminal can show."""
    text = json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8", "replace").decode()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text), indent=1)
    print(text)


def _as_json(episode: "Episode", notebook: Path | None) -> dict[str, Any]:
    return dataclasses.asdict(episode) | {
        "outcome": episode.outcome.value,
        "notebook": str(notebook) if notebook else None,
    }
