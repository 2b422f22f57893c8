"""The agent works on its own: a chat server, real sandboxed kernels, an answer, a notebook."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from actors.agent.events import Episode
from actors.agent.notebook_agent import NotebookAgent
from actors.agent.stand_alone import stand_alone_config
from actors.agent.stream import ActionPiece, ActionTaken, EpisodeDone, Event, StepDone
from actors.kernels.tool_specs import ToolSpec
from actors.tools.search.index import build_index
from actors.tools.tool import ToolCall
from common.config import McpServer, Tools
from common.errors import ConfigError, InputError, MachineError
from common.wire.records import Outcome
from launch.notebooks.export import make_notebook
from launch.notebooks.transcripts import transcript_of
from tests.chat_server import ChatServer, Messages, Reply, in_turn, replies, tokens_of, work_in

pytestmark = pytest.mark.sandbox
LIMIT_S = 30


def act(code: str, think: str = "so") -> str:
    return f"<think>{think}</think><code>{code}</code>"


ADD = act("x = 20 + 1\nprint('x is', x)")
SUBMIT = act("submit_final_answer(2 * x)")


@pytest.fixture(autouse=True)
def no_process_is_left() -> object:
    """Whatever an agent started is gone when it is closed."""
    before = {child.pid for child in psutil.Process().children()}
    yield
    started = [c for c in psutil.Process().children() if c.pid not in before]
    _, left = psutil.wait_procs(started, timeout=5)
    assert not left


def agent_of(server: ChatServer, **options: object) -> NotebookAgent:
    return NotebookAgent(base_url=server.url, **options)  # type: ignore[arg-type]


def observations(server: ChatServer) -> list[str]:
    """What the model saw, in its last prompt."""
    messages = server.requests[-1]["messages"]
    return [m["content"] for m in messages if m["content"].startswith("<output>")]


def test_an_agent_works_in_its_notebook_until_it_has_an_answer() -> None:
    with ChatServer(replies(ADD, SUBMIT)) as server:
        episode = agent_of(server).run("What is twice 21?")

    assert (episode.outcome, episode.answer) == (Outcome.SUBMITTED, "42")
    assert [step.code for step in episode.steps] == [
        "x = 20 + 1\nprint('x is', x)",
        "submit_final_answer(2 * x)",
    ]
    assert episode.steps[0].observation == "x is 21"
    assert episode.steps[1].tool_calls == ("submit_final_answer",)
    assert episode.kernel_level.startswith(("A", "B"))
    system = server.requests[0]["messages"][0]
    (task,) = work_in(server.requests[0]["messages"])
    assert "submit_final_answer(" in system["content"]
    assert "notepad" in system["content"]
    assert task == {"role": "user", "content": "What is twice 21?"}


def test_jupyter_runs_the_notebook_of_an_episode_again_with_the_same_outputs() -> None:
    actions = (
        ADD,
        act("print('before')\nx / 0"),
        act("import os\nprint('é ↯', os.listdir('/home'))\nx"),
        act("submit_final_answer(x)"),
    )
    with ChatServer(replies(*actions)) as server:
        episode = agent_of(server).run("Do it.")
    notebook = make_notebook(transcript_of(episode, "Do it."))
    again = nbformat.from_dict(notebook)
    for cell in again.cells:
        cell.pop("outputs", None)

    again.cells.pop(-2)  # the tools are not there
    NotebookClient(again, kernel_name=again.metadata.kernelspec.name, allow_errors=True).execute()

    recorded = [cell for cell in notebook.cells if cell.cell_type == "code"]
    rerun = [cell for cell in again.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in recorded] == [1, 2, 3, 4]
    assert [printed(cell) for cell in rerun] == [printed(cell) for cell in recorded[:-1]]
    assert printed(rerun[1]) == ["before", "ZeroDivisionError: division by zero"]


def printed(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell showed; of an error its name and text, the frames are the front end's matter."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "error":
            texts.append(f"{output.ename}: {output.evalue}")
        elif output.output_type == "stream":
            texts += output.text.rstrip().split("\n")
        else:
            texts.append(output.data["text/plain"])
    return texts


def test_plain_functions_are_tools() -> None:
    def double(number: int, *, times: int = 1) -> int:
        """Double a number."""
        return number * 2**times

    async def fail(text: str) -> str:
        """Complain."""
        raise ValueError(f"not {text}")

    cell = "try:\n    fail('so')\nexcept ValueError as error:\n    print(error)\ndouble(3, times=2)"
    with ChatServer(replies(act(cell), act("submit_final_answer(double(4))"))) as server:
        episode = agent_of(server, tools=[double, fail]).run("Double 4.")

    assert episode.answer == "8"
    assert episode.steps[0].observation == "not so\n12"
    assert episode.steps[0].tool_calls == ("fail", "double")
    prompt = server.requests[0]["messages"][0]["content"]
    assert "double(number: int, *, times: int = 1) -> int: Double a number." in prompt
    assert "notepad" not in prompt


class Shelf:
    """A tool that does what no tool should."""

    specs = (ToolSpec(name="shelf", doc=""),)

    async def start(self) -> None: ...

    async def call(self, call: ToolCall) -> None:
        raise SystemExit(3)

    async def close(self) -> None:
        raise KeyError("x")


def test_an_object_of_the_user_s_own_that_fails_loses_no_work() -> None:
    cell = "try:\n    shelf()\nexcept ValueError as error:\n    print(error)"
    with ChatServer(replies(act(cell), act("submit_final_answer(1)"))) as server:
        episode = agent_of(server, tools=[Shelf()]).run("Look.")

    assert episode.answer == "1"
    assert episode.steps[0].observation == "shelf ended itself: SystemExit(3)"


def test_tools_of_an_mcp_server_serve_task_after_task() -> None:
    config = stand_alone_config()
    fake = McpServer(command=(sys.executable, str(Path(__file__).with_name("mcp_fake_server.py"))))
    config = replace(config, tools=Tools(mcp={"fake": fake}))
    with (
        ChatServer(replies(act("submit_final_answer(fake.add(40))"))) as server,
        agent_of(server, config=config, tools=["mcp.fake"]) as agent,
    ):
        answers = [agent.run("What is 40 and 2?").answer for _ in range(2)]

    assert answers == ["42", "42"]
    assert "fake.add(" in server.requests[0]["messages"][0]["content"]


def test_files_and_a_corpus_are_there_in_the_notebook(tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("1\n2\n39\n")
    pages = [{"title": "Mount Lo", "text": "Mount Lo is 812 m high."}]
    (tmp_path / "pages.jsonl").write_text("\n".join(map(json.dumps, pages)))
    build_index(tmp_path / "pages.jsonl", tmp_path / "pages.sqlite")
    read = "print(sum(map(int, open('numbers.csv'))), search('Mount Lo'))"

    with ChatServer(replies(act(read), act("submit_final_answer('done')"))) as server:
        agent = agent_of(server, corpus=tmp_path / "pages.sqlite")
        episode = agent.run("Read.", files=[tmp_path / "numbers.csv"])

    assert episode.answer == "done"
    assert episode.steps[0].observation == "42 Mount Lo is 812 m high."
    assert "numbers.csv" in server.requests[0]["messages"][0]["content"]


def test_a_model_that_forgets_the_form_is_reminded_of_it() -> None:
    talk = "The answer is probably 42."
    with ChatServer(replies(talk, ADD, talk, SUBMIT)) as server:
        episode = agent_of(server).run("What is twice 21?")

    assert episode.answer == "42"
    reminded = server.requests[-1]["messages"][-1]["content"]
    assert reminded.startswith("Your code printed:\nx is 21\n\nNothing was run:")
    assert reminded.endswith("</think><code>submit_final_answer('probably 42')</code>")


def test_a_model_that_never_keeps_the_form_is_given_up() -> None:
    with ChatServer(lambda messages: "I will not.") as server:
        episode = agent_of(server).run("What is twice 21?")

    assert (episode.outcome, episode.answer) == (Outcome.UNPARSABLE, None)
    assert len(server.requests) == stand_alone_config().agent.format_reminders + 1


def test_a_full_context_is_trimmed_and_the_notepad_stays() -> None:
    def script(messages: Messages) -> str:
        if len(server.requests) == 9:
            return act("submit_final_answer(notepad.read().count('fact'))")
        return act("notepad.add_fact('fact')\nprint('y' * 900)")

    with ChatServer(script, max_model_len=2400) as server:
        agent = agent_of(server, tools=["notepad"], max_action_tokens=200)
        episode = agent.run("Go on until the end.")

    sizes = [sum(tokens_of(m["content"]) for m in r["messages"]) for r in server.requests]
    assert episode.outcome is Outcome.SUBMITTED
    assert episode.answer == "8"
    assert max(sizes) + 200 <= 2400
    assert any(later < earlier for earlier, later in itertools.pairwise(sizes))


def test_an_output_of_more_tokens_than_was_thought_is_cut() -> None:
    flood, submit = act("print('7' * 4000)"), act("submit_final_answer(1)")
    with ChatServer(in_turn(flood, flood, submit), max_model_len=3000) as server:
        episode = agent_of(server, tools=[], max_action_tokens=300).run("Print.")

    assert episode.answer == "1"
    assert "[cut: the context is full]" in observations(server)[-1]
    assert len(server.requests) > 3


def test_a_direct_answer_needs_no_kernel() -> None:
    with ChatServer(replies(Reply(text="It is 42.", reasoning="21 + 21"))) as server:
        episode = agent_of(server, mode="direct").run("What is twice 21?")

    assert (episode.outcome, episode.answer) == (Outcome.SUBMITTED, "It is 42.")
    assert (episode.kernel_level, episode.cells_executed) == ("", 0)
    assert [m["role"] for m in server.requests[0]["messages"]] == ["user"]


def test_a_server_that_fails_in_the_middle_ends_the_episode_with_its_reason() -> None:
    with ChatServer(replies(ADD, SUBMIT), faults=[None, 403]) as broken:
        episode = agent_of(broken).run("What is twice 21?")

    assert (episode.outcome, episode.answer) == (Outcome.INFRASTRUCTURE, None)
    assert f"server {broken.url} refuses the API key" in episode.failure


def test_an_open_agent_keeps_its_sandbox_between_tasks() -> None:
    with ChatServer(replies(ADD, SUBMIT)) as server, agent_of(server) as agent:
        first = {child.pid for child in psutil.Process().children(recursive=True)}
        answers = [agent.run(f"Task {number}").answer for number in range(3)]
        second = {child.pid for child in psutil.Process().children(recursive=True)}

    assert answers == ["42"] * 3
    assert first & second


def test_many_tasks_run_at_once() -> None:
    def script(messages: Messages) -> str:
        work = work_in(messages)
        number = work[0]["content"].split()[-1]
        seen = [m["content"] for m in work if m["content"].startswith("<output>")]
        return act(f"submit_final_answer(y + {number})") if seen else act(f"y = {number}; y")

    async def work() -> list[Episode]:
        async with agent_of(server) as agent:
            tasks = [agent.run_async(f"Add {number}") for number in range(6)]
            return await asyncio.gather(*tasks)

    with ChatServer(script) as server:
        episodes = asyncio.run(work())

    assert [episode.answer for episode in episodes] == [str(2 * number) for number in range(6)]


def test_a_stream_tells_everything_in_order() -> None:
    async def work() -> list[Event]:
        return [event async for event in agent_of(server).stream("What is twice 21?")]

    with ChatServer(replies(ADD, SUBMIT)) as server:
        events = asyncio.run(work())

    kinds = [type(event) for event in events]
    taken = [event for event in events if isinstance(event, ActionTaken)]
    done = [event for event in events if isinstance(event, StepDone)]
    first = "".join(e.text for e in events if isinstance(e, ActionPiece) and e.number == 0)
    assert ADD.startswith(first)
    assert len(first) > len(ADD) - 10
    assert [event.text for event in taken] == [ADD, SUBMIT]
    assert [event.step.observation for event in done] == ["x is 21", ""]
    assert kinds.index(ActionTaken) < kinds.index(StepDone)
    assert isinstance(events[-1], EpisodeDone)
    assert events[-1].episode.answer == "42"


def test_leaving_a_stream_ends_the_episode() -> None:
    async def work() -> None:
        stream: AsyncIterator[Event] = agent_of(server).stream("Wait.")
        async with aclosing(stream):  # type: ignore[type-var]
            async for event in stream:
                if isinstance(event, ActionTaken):
                    return

    with ChatServer(lambda messages: act("while True: pass")) as server:
        asyncio.run(asyncio.wait_for(work(), LIMIT_S))


def test_a_running_event_loop_is_named() -> None:
    async def work() -> None:
        NotebookAgent(base_url="http://127.0.0.1:1/v1").run("x")

    with pytest.raises(RuntimeError, match=r"await agent\.run_async"):
        asyncio.run(work())


def test_another_thread_than_the_main_one_is_refused() -> None:
    errors: list[Exception] = []

    def work() -> None:
        try:
            agent_of(server).run("x")
        except MachineError as error:
            errors.append(error)

    with ChatServer(replies(ADD, SUBMIT)) as server:
        thread = threading.Thread(target=work, name="worker")
        thread.start()
        thread.join(LIMIT_S)

    assert "must be started from the main thread, got thread 'worker'" in str(errors[0])


def function(name: str) -> Callable[[int], int]:
    def given(number: int) -> int:
        return number

    given.__name__ = name
    return given


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda s: agent_of(s).run(" "), InputError, "the task is empty"),
        (lambda s: agent_of(s).run("x", files=["/nope"]), InputError, "/nope does not exist"),
        (lambda s: agent_of(s, tools=["seek"]).run("x"), ConfigError, "unknown tool 'seek'"),
        (lambda s: agent_of(s, tools=[lambda *a: a]), ConfigError, r"cannot be a tool: .*\*a"),
        (lambda s: agent_of(s, mode="x"), ConfigError, "mode must be one of 'agent', 'direct'"),
        (lambda s: agent_of(s, tools=[function("time")]).run("x"), ConfigError, "called 'time'"),
        (lambda s: agent_of(s, tools=[function("notepad")]).run("x"), ConfigError, "'notepad'"),
        (lambda s: agent_of(s, tools=[function("f")] * 2).run("x"), ConfigError, "both make 'f'"),
        (lambda s: agent_of(s, max_steps=0), ConfigError, "max_steps must be at least 1"),
        (lambda s: agent_of(s, system_prompt="/no").run("x"), ConfigError, "no template '/no'"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_asked(
    use: Callable[[ChatServer], object], error: type[Exception], message: str
) -> None:
    with ChatServer(replies(ADD)) as server:
        with pytest.raises(error, match=message):
            use(server)

        assert server.requests == []


def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"a\xff.csv")
    odd.write_text("1,2")
    with ChatServer(replies(ADD)) as server, pytest.raises(InputError, match="cannot be used"):
        agent_of(server).run("x", files=[odd])


def lzero(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in ``folder``."""
    command = [sys.executable, "-m", "launch.cli", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )


def test_the_command_shows_the_work_and_writes_a_notebook(tmp_path: Path) -> None:
    with ChatServer(replies(ADD, act("1 / 0", "try"), SUBMIT)) as server:
        done = lzero(
            "agent", "What is twice 21?", "--url", server.url, "--out", "out/a.ipynb",
            folder=tmp_path,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    for line in ("[1] think:", "    x is 21", "    ZeroDivisionError: division by zero"):
        assert line in done.stdout.split("\n")
    assert "answer:\n    42\n3 steps" in done.stdout
    notebook = nbformat.read(tmp_path / "out" / "a.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.lzero.answer == "42"


def test_the_command_fails_without_an_answer_and_can_speak_json(tmp_path: Path) -> None:
    with ChatServer(replies(ADD)) as server:
        done = lzero("agent", "x", "--url", server.url, "--max-steps", 1, "--json", folder=tmp_path)

    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert (told["outcome"], told["answer"]) == ("out_of_steps", None)
    assert told["steps"][0]["observation"] == "x is 21"
    assert "no answer:\n    out of steps" in done.stderr
    assert [str(path) for path in tmp_path.iterdir()] == [str(tmp_path / told["notebook"])]


def test_half_a_character_in_an_answer_does_not_lose_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    submit = act("submit_final_answer('café \ud83d!')", think="half: \udc00")
    with ChatServer(replies(submit)) as server:
        done = lzero(
            "agent", "x\udcff?", "--url", server.url, "--json", "--out", "a.ipynb", folder=tmp_path
        )

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["answer"] == "café ?!"
    assert told["steps"][0]["action"].startswith("<think>half: ?</think>")
    assert work_in(server.requests[0]["messages"])[0]["content"] == "x??"
    assert "café ?!" in (tmp_path / "a.ipynb").read_text(encoding="utf-8")


def test_the_command_takes_its_settings_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.j2").write_text("You have {{ max_steps }} cells.")
    (tmp_path / "agent.toml").write_text('[agent]\nmax_steps = 7\nsystem_prompt = "prompt.j2"\n')
    with ChatServer(replies(ADD, SUBMIT)) as server:
        done = lzero(
            "agent", "x", "--url", server.url, "--config", "agent.toml", "--temperature", "0",
            folder=tmp_path,
        )  # fmt: skip

    assert done.returncode == 0
    assert server.requests[0]["messages"][0]["content"] == "You have 7 cells."
    assert server.requests[0]["temperature"] == 0


def test_a_wrong_address_is_one_line(tmp_path: Path) -> None:
    with ChatServer(replies(ADD)) as server:
        done = lzero("agent", "x", "--url", server.url.removesuffix("/v1"), folder=tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith("lzero: server http://127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    def script(messages: Messages) -> str:
        if len(work_in(messages)) > 1:
            second.set()
            threading.Event().wait(0.5)
        return ADD

    second = threading.Event()
    command = [sys.executable, "-m", "launch.cli", "agent", "x", "--out", "a.ipynb", "--url"]
    with ChatServer(script) as server:
        running = subprocess.Popen(
            [*command, server.url],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            assert second.wait(LIMIT_S)
            running.send_signal(signal.SIGINT)
            _, errors = running.communicate(timeout=LIMIT_S)
        finally:
            running.kill()
            running.communicate()

    assert (running.returncode, errors) == (130, b"")
    notebook = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert notebook.metadata.lzero.outcome == "interrupted"
    assert [c.source for c in notebook.cells if c.cell_type == "code"] == [
        "x = 20 + 1\nprint('x is', x)"
    ]


def test_a_notebook_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with ChatServer(replies(SUBMIT)) as server:
        done = lzero("agent", "x", "--url", server.url, "--out", "/proc/x", folder=tmp_path)

    assert (done.returncode, done.stdout, server.requests) == (2, "", [])
    assert done.stderr.startswith("lzero: /proc/x cannot be written: ")
    assert done.stderr.count("\n") == 1


def test_the_work_is_told_when_its_notebook_cannot_be_written_any_more(tmp_path: Path) -> None:
    def script(messages: Messages) -> str:
        notebook.mkdir(exist_ok=True)
        return work(messages)

    work = replies(ADD, SUBMIT)
    notebook = tmp_path / "a.ipynb"
    with ChatServer(script) as server:
        done = lzero(
            "agent", "x", "--url", server.url, "--out", notebook, "--json", folder=tmp_path
        )

    told = json.loads(done.stdout)
    assert (done.returncode, told["outcome"], told["notebook"]) == (2, "submitted", None)
    assert "a.ipynb cannot be written: " in done.stderr.splitlines()[-1]
