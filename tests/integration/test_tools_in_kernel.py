"""Tools of the host called from cells of a real kernel: values, signatures, errors, no keys."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from actors.kernels.launchers import make_launcher
from actors.tools.catalogue import make_tools
from actors.tools.search.index import build_index
from actors.tools.tool import Tool, ToolCall
from common.config import Agent, Config, Kernel, McpServer, Pages, Service, Tools, Vision
from common.wire.records import Task
from tests.web_fakes import FakeWeb, as_json, data, serving

pytestmark = pytest.mark.sandbox

KEY = "sk-very-secret-0123456789"
PNG = b"\x89PNG\r\n\x1a\n picture"
Run = Callable[[str], str]


@pytest.fixture(scope="module")
def run_cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """``run_cell(code)``: output of a cell in a kernel with every shared tool."""
    folder = tmp_path_factory.mktemp("tools")
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("VISION_API_KEY", KEY)
        running = _notebook(folder)
        run = runner.run(anext(running))
        yield lambda code: runner.run(run(code))
        runner.run(running.aclose())


async def _notebook(folder: Path) -> Any:
    completion = {"choices": [{"message": {"content": "A red dot."}}]}
    page = b"<html><head><title>Ada</title></head><body><p>Ada wrote notes.</p></body></html>"
    async with (
        serving(data(page, "text/html")) as pages,
        serving(as_json(completion)) as vision,
    ):
        tools = make_tools(_config(vision), _corpora(folder))
        launcher = make_launcher(Kernel(idle=0))
        await launcher.start()
        kernel = await launcher.launch()
        try:
            for tool in tools.values():
                await tool.start()
            _bind(kernel, tools, _task(folder))
            await kernel.execute(f"page_url = {pages.url + '/ada'!r}", timeout_s=10)

            async def run(code: str) -> str:
                return str((await kernel.execute(code, timeout_s=20)).output)

            yield run
        finally:
            await kernel.close()
            for tool in tools.values():
                await tool.close()
            await launcher.close()


def _config(vision: FakeWeb) -> Config:
    server = Path(__file__).with_name("mcp_fake_server.py")
    return Config(
        agent=Agent(
            tools=(
                "search",
                "read_page",
                "inspect_file",
                "visual_qa",
                "mcp.fake",
                "submit_final_answer",
            )
        ),
        tools=Tools(
            pages=Pages(allowed_domains=("127.0.0.1",)),
            vision=Vision(service="eyes", model="eyes"),
            mcp={"fake": McpServer(command=(sys.executable, str(server)))},
        ),
        services={"eyes": Service(base_url=vision.url, api_key_env="VISION_API_KEY")},
    )


def _corpora(folder: Path) -> dict[str, str]:
    line = json.dumps({"title": "Ada", "text": "Ada, born in London."})
    (folder / "corpus.jsonl").write_text(line)
    build_index(folder / "corpus.jsonl", folder / "corpus.sqlite")
    return {"train": str(folder / "corpus.sqlite")}


def _task(folder: Path) -> Task:
    (folder / "table.csv").write_text("town,sum\nParis,3\n")
    (folder / "dot.png").write_bytes(PNG)
    files = (str(folder / "table.csv"), str(folder / "dot.png"))
    return Task(task_id="t", question="?", answers=("a",), files=files)


def _bind(kernel: Any, tools: dict[str, Tool], task: Task) -> None:
    owners = {spec.name: tool for tool in tools.values() for spec in tool.specs}

    async def handle(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        call = ToolCall(name=name, arguments=arguments, keywords=keywords, task=task)
        return await owners[name].call(call)

    kernel.bind_tools([spec for tool in tools.values() for spec in tool.specs], handle)


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("print(search('ada'))", "Ada, born in London.\n"),
        ("print(read_page(page_url).splitlines()[-1])", "Ada wrote notes.\n"),
        ("print(inspect_file('table.csv'))", "town\tsum\nParis\t3\n"),
        ("visual_qa('dot.png', 'What is it?')", "'A red dot.'\n"),
        ("visual_qa(image=b'\\x89PNG\\r\\n\\x1a\\n', question='?')", "'A red dot.'\n"),
        ("fake.add(1, b=4) + 1", "6\n"),
        ("fake.place('Paris')['people']", "7\n"),
        ("type(fake.picture()).__name__", "'bytes'\n"),
        (
            "import inspect; print(inspect.signature(fake.add), '|', fake.add.__doc__[:15])",
            "(a: int, b: int = 2) -> int | Add two numbers\n",
        ),
    ],
)
def test_a_cell_calls_a_tool_like_a_function(run_cell: Run, code: str, output: str) -> None:
    assert run_cell(code) == output


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("search()", "TypeError: search() missing a required argument: 'query'"),
        ("read_page('http://169.254.169.254/')", "PermissionError: 169.254.169.254 may not"),
        ("read_page('file:///etc/passwd')", "ValueError: expected an address"),
        ("inspect_file('../../etc/passwd')", "ValueError: no attached file is called"),
        ("fake.fail('out of cheese')", "ValueError: "),
        ("fake.add('x')", "ValueError: "),
        ("search('a', task=None)", "unexpected keyword argument 'task'"),
    ],
)
def test_a_failure_is_an_exception_of_the_cell(run_cell: Run, code: str, error: str) -> None:
    assert error in run_cell(code)


def test_no_cell_sees_the_key_of_a_service(run_cell: Run) -> None:
    code = """
        import os, glob
        seen = str(dict(os.environ))
        for path in glob.glob('/proc/*/environ'):
            try: seen += open(path).read()
            except OSError: pass
        print('secret' in seen, 'VISION_API_KEY' in seen)
    """
    assert run_cell("\n".join(line[8:] for line in code.splitlines())) == "False False\n"
