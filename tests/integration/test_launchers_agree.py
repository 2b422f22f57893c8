"""Whatever launcher runs a cell, the agent observes the same."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from actors.kernels.interface import KernelDiedError
from actors.kernels.launchers import make_launcher
from actors.kernels.tool_specs import ToolError, ToolParameter, ToolSpec
from common.config import Kernel

pytestmark = pytest.mark.sandbox
LAUNCHERS = ("forked", "cold", "jupyter")
CELLS_FILE = Path(__file__).resolve().parents[1] / "data" / "launcher_cells.txt"
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")
UNSTABLE_COUNT = re.compile(r"\[\d+ bytes of output dropped\]")
DEADLY_CELLS = {
    "os._exit": "import os\nprint('bye', flush=True)\nos._exit(0)",
    "os._exit with a code": "import os\nos._exit(3)",
    "a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "abort": "import os\nos.abort()",
}


TOOLS = (
    ToolSpec(
        name="search",
        doc="Finds things.",
        parameters=(
            ToolParameter(name="query", annotation="str"),
            ToolParameter(name="k", annotation="int", required=False, default=3, keyword_only=True),
        ),
        returns="list[str]",
    ),
    ToolSpec(name="fail", doc="Fails.", parameters=(ToolParameter(name="how"),)),
    ToolSpec(name="notes.size", doc="How many.", returns="int", is_property=True),
    ToolSpec(name="notes.add", doc="Adds one.", parameters=(ToolParameter(name="text"),)),
    ToolSpec(name="clock.now", doc="What time.", is_property=True),
    ToolSpec(
        name="answer", doc="Takes all.", parameters=(ToolParameter(name="it", annotation="Any"),)
    ),
)
TOOL_CELLS = (
    "search('ä', k=2)",
    "print(search('x'))",
    "search",
    "search?",
    "help(search)",
    "help(notes.add)",
    "notes.size, notes.add('one')",
    "fail('value')",
    "fail('key')",
    "fail('time')",
    "fail('tool')",
    "fail('other')",
    "def inside():\n    return fail('value')\ninside()",
    "try:\n    fail('tool')\nexcept ToolError as error:\n    raise RuntimeError('no') from error",
    "search()",
    "search('a', 'b')",
    "search('a', depth=3)",
    "search(object())",
    "missing_tool('a')",
    "[search(str(n))[0] for n in range(3)]",
    "import asyncio\nawait asyncio.to_thread(search, 'thread')",
    "from concurrent.futures import ThreadPoolExecutor\n"
    "with ThreadPoolExecutor(4) as pool:\n    print(list(pool.map(search, 'abcd')))",
    "import os\npid = os.fork()\nif pid == 0:\n    try:\n        search('child')\n"
    "    except RuntimeError as error:\n        print(error)\n    os._exit(0)\n"
    "os.waitpid(pid, 0)[1]",
    "%who",
    "search = 'mine'\nsearch",
    "search('again')",
    "for notes in range(3):\n    pass\n1 / 0",
    "del notes, ToolError",
    "notes.size, ToolError.__name__",
    "%reset -f",
    "search('after a reset')",
    "clock.now",
    "import time as clock\nclock.time() > 0",
    "clock.now, clock.time() > 0",
    "clock.never",
    "search({2020: 1})",
    "search({(1, 2): 3})",
    "import msgpack\nsearch(msgpack.ExtType(1, b'x'))",
    "search('\\ud800')",
    "answer({2020: 1, (1, 2): '\\ud800'})",
    "deep = []\nfor _ in range(2000):\n    deep = [deep]\nsearch(deep)",
    "try:\n    for number in range(10_000):\n        notes.size\n"
    "except RuntimeError as error:\n    print(number, error)",
    "try:\n    for number in range(100):\n        search('x' * 1_000_000)\n"
    "except RuntimeError as error:\n    print(number, error)",
)


@dataclass(frozen=True)
class Cell:
    name: str
    code: str
    timeout_s: float


def read_cells():
    """The groups of the file, each a list of cells."""
    groups = {}
    header = re.compile(r"(===|---) (.*?)(?: \[([\d.]+)\])?$", re.MULTILINE)
    text = CELLS_FILE.read_text()
    marks = list(header.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        kind, name, seconds = mark.groups()
        if kind == "===":
            cells = groups.setdefault(name, [])
        else:
            code = text[mark.end() + 1 : following.start() if following else None]
            cells.append(Cell(name, code.removesuffix("\n"), float(seconds or 10)))
    return groups


GROUPS = read_cells()
LONG_GROUPS = {"interrupts": pytest.mark.nightly}
EVERY_CELL = [
    pytest.param(name, number, id=f"{name}: {cell.name}", marks=LONG_GROUPS.get(name, ()))
    for name, cells in GROUPS.items()
    for number, cell in enumerate(cells)
]


def observation(result, cell):
    """What the agent gets to see, without memory addresses."""
    output = ADDRESS.sub("0x", result.output)
    if cell.timeout_s < 1:  # how far a flood came depends on the machine
        output = UNSTABLE_COUNT.sub("[bytes of output dropped]", output)
    return {
        "status": str(result.status),
        "error": result.error_name,
        "outputs": result.outputs,
        "dropped": result.dropped_bytes if cell.timeout_s >= 1 else result.dropped_bytes > 0,
        "output": output,
    }


class Launched:
    """One running launcher of each kind; a group of cells is run once in each."""

    def __init__(self, runner):
        self.runner = runner
        self.launchers = {name: make_launcher(Kernel(launcher=name)) for name in LAUNCHERS}
        self.seen = {}

    def start(self):
        for launcher in self.launchers.values():
            self.runner.run(launcher.start())

    def close(self):
        for launcher in self.launchers.values():
            self.runner.run(launcher.close())

    def group(self, name, launchers=("forked", "jupyter")):
        """The observations of a group's cells, per launcher."""
        missing = [launcher for launcher in launchers if (name, launcher) not in self.seen]
        if missing:
            self.runner.run(self._run_in(missing, name))
        return {launcher: self.seen[name, launcher] for launcher in launchers}

    async def _run_in(self, launchers, name):
        cells = GROUPS[name]
        runs = [self._run(self.launchers[launcher], cells) for launcher in launchers]
        for launcher, seen in zip(launchers, await asyncio.gather(*runs), strict=True):
            self.seen[name, launcher] = seen

    async def _run(self, launcher, cells):
        kernel = await launcher.launch()
        seen = []
        try:
            for cell in cells:
                result = await kernel.execute(cell.code, timeout_s=cell.timeout_s)
                seen.append(observation(result, cell))
        except KernelDiedError as error:
            seen.append({"died": str(error)})
        finally:
            await kernel.close()
        return seen + [{"never": "run"}] * (len(cells) - len(seen))


@pytest.fixture(scope="module")
def launched():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        both = Launched(runner)
        both.start()
        yield both
        both.close()


def test_there_are_at_least_200_cells():
    assert len(EVERY_CELL) >= 200
    assert len({cell.id for cell in EVERY_CELL}) == len(EVERY_CELL)


@pytest.mark.parametrize(("group", "number"), EVERY_CELL)
def test_a_cell_is_observed_alike(launched, group, number):
    seen = launched.group(group)

    assert seen["jupyter"][number] == seen["forked"][number]
    assert "output" in seen["forked"][number]


@pytest.mark.nightly  # it runs the very same shell
@pytest.mark.parametrize("group", GROUPS)
def test_a_cold_kernel_shows_the_same(launched, group):
    seen = launched.group(group, ("forked", "cold"))

    assert seen["cold"] == seen["forked"]


async def serve(name, arguments, keywords):
    if name == "fail":
        kinds = {"value": ValueError, "key": KeyError, "time": TimeoutError, "tool": ToolError}
        raise kinds.get(arguments[0], OSError)("told you")
    return 7 if name == "notes.size" else [f"{name} {arguments} {keywords}"]


def test_tools_are_observed_alike(launched):
    async def run(launcher):
        kernel = await launcher.launch()
        try:
            kernel.bind_tools(TOOLS, serve)
            results = [await kernel.execute(code, timeout_s=10) for code in TOOL_CELLS]
        finally:
            await kernel.close()
        return [
            {"code": code, **observation(result, Cell(code, code, 10))}
            for result, code in zip(results, TOOL_CELLS, strict=True)
        ]

    forked, *others = (launched.runner.run(run(made)) for made in launched.launchers.values())

    for seen in others:
        assert [pair for pair in zip(seen, forked, strict=True) if pair[0] != pair[1]] == []
    errors = "".join(seen["output"] for seen in forked if seen["error"])
    assert "told you" in errors
    assert not [word for word in ("actors", "/msgpack") if word in errors]
    shown = [seen["output"] for seen in forked]
    assert sum("is a tool again" in output for output in shown) == 2
    assert [output for output in shown if output.startswith("3000 no more than")]


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, id=name, marks=() if name == "a signal" else pytest.mark.nightly)
        for name, code in DEADLY_CELLS.items()
    ],
)
def test_a_kernel_that_kills_itself_is_reported_alike(launched, code):
    async def run(launcher):
        kernel = await launcher.launch()
        try:
            with pytest.raises(KernelDiedError) as caught:
                await kernel.execute(code, timeout_s=10)
            return caught.value.cause, str(caught.value).partition(" ended: ")[2]
        finally:
            await kernel.close()

    ends = {kind: launched.runner.run(run(made)) for kind, made in launched.launchers.items()}

    assert ends["cold"] == ends["jupyter"] == ends["forked"]
    assert ends["forked"][1].startswith("its process ")
