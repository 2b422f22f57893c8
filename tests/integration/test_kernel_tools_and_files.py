"""Tools, files and outputs of real kernels."""

import asyncio
import hashlib
import os

import pytest

from actors.kernels.interface import CellStatus, DeathCause, KernelDiedError
from actors.kernels.tool_specs import ToolParameter, ToolSpec
from tests.notebook import echo

pytestmark = pytest.mark.sandbox
SEARCH = ToolSpec(
    name="search",
    doc="Look something up.",
    parameters=(
        ToolParameter(name="query", annotation="str"),
        ToolParameter(name="k", annotation="int", required=False, default=3),
        ToolParameter(name="site", annotation="str", required=False, default="", keyword_only=True),
    ),
    returns="list[str]",
)
TOKENS = ToolSpec(name="notepad.tokens", doc="How many.", returns="int", is_property=True)
ADD = ToolSpec(
    name="notepad.add", doc="Add.", parameters=(ToolParameter(name="item", annotation="str"),)
)


def test_outputs_are_counted_as_a_notebook_shows_them(notebook):
    code = """
        import subprocess, sys
        print(1)
        print(2)
        print(3, file=sys.stderr)
        display(4)
        subprocess.run(["echo", "5"])
    """
    assert notebook.execute(code).outputs == 5
    assert notebook.execute("print(1)\n1 / 0").outputs == 2
    assert notebook.execute("x = 1").outputs == 0


def test_a_cell_can_be_given_less_output(notebook):
    result = notebook.execute("print('ä' * 100)", output_bytes=10)

    assert result.output == "ää\n[192 bytes of output dropped]\nää\n"
    assert notebook.execute("1", output_bytes=0).output == "\n[2 bytes of output dropped]\n"
    assert notebook.execute("print('x' * 10)", output_bytes=1 << 40).output == "x" * 10 + "\n"


def test_a_file_can_be_put_into_the_working_folder(notebook):
    data = os.urandom(700_000)

    notebook.put_file("data ü.bin", data)
    notebook.put_file("data ü.bin", data[:-1])
    notebook.put_file("empty.txt", b"")

    digest = hashlib.sha256(data[:-1]).hexdigest()
    code = "import hashlib; hashlib.sha256(open('data ü.bin', 'rb').read()).hexdigest()"
    assert notebook.value(code) == repr(digest)
    assert notebook.value("open('/workspace/empty.txt').read()") == "''"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "../x", "a\0b", " x"])
def test_a_file_needs_a_plain_name(notebook, name):
    with pytest.raises(ValueError, match="plain name"):
        notebook.put_file(name, b"")

    assert notebook.value("1") == "1"


def test_a_file_that_does_not_fit_ends_the_kernel_and_says_so(notebook):
    with pytest.raises(
        KernelDiedError, match=r"'big' of 73400320 bytes .*(ENOSPC|EFBIG).*workspace"
    ) as it:
        notebook.put_file("big", bytes(70 << 20))

    assert it.value.cause is DeathCause.FILE


@pytest.mark.parametrize(
    "trap", ["os.symlink('/workspace/victim', 'x')", "os.mkfifo('x')", "os.mkdir('x')"]
)
def test_a_file_is_not_written_through_what_a_cell_left_there(notebook, trap):
    notebook.run(f"import os\n{trap}")

    with pytest.raises(KernelDiedError, match=r"ELOOP|ENXIO|EISDIR"):
        notebook.put_file("x", b"text")


def test_tools_look_like_python_functions_and_objects(notebook):
    notebook.bind([SEARCH, TOKENS, ADD], echo)

    shown = notebook.value("help(search)")
    assert "search(query: str, k: int = 3, *, site: str = '') -> list[str]" in shown
    assert "Look something up." in shown
    assert "add(item: str)" in notebook.value("import inspect; help(notepad)")
    assert notebook.value("notepad.add('x')") == "['notepad.add', ['x'], {}]"
    assert notebook.value("notepad.tokens") == "['notepad.tokens', [], {}]"
    assert notebook.run("notepad.tokens = 1").error_name == "AttributeError"


def test_wrong_arguments_are_refused_before_anything_leaves_the_sandbox(notebook):
    called = []

    async def handler(name, arguments, keywords):
        called.append(name)

    notebook.bind([SEARCH], handler)

    for call in ("search()", "search('a', 1, 'b')", "search('a', query='b')", "search(what='a')"):
        result = notebook.run(call)
        assert (result.error_name, called) == ("TypeError", []), call
    assert notebook.run("search('a', site='b')").status is CellStatus.OK
    assert called == ["search"]


def test_results_that_are_too_large_or_cannot_be_sent_are_errors_in_the_cell(notebook):
    async def handler(name, arguments, keywords):
        if arguments[0] == "text":
            raise ValueError("lone surrogate: \ud800")
        return {"large": b"x" * (5 << 20), "odd": object(), "fine": b"x" * (3 << 20)}[arguments[0]]

    notebook.bind(["get"], handler)

    large = notebook.run("get('large')")
    assert large.error_name == "ToolError"
    assert "has 5,242,8" in large.output
    assert notebook.run("get('odd')").error_name == "TypeError"
    assert "lone surrogate: ?" in notebook.run("get('text')").output
    assert notebook.value("len(get('fine'))") == str(3 << 20)


def test_threads_can_call_tools_at_once(notebook):
    notebook.bind(["slow"], echo)
    code = """
        import time
        from concurrent.futures import ThreadPoolExecutor
        started = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda i: slow(i)[1][0], range(16)))
        answers == list(range(16)), time.monotonic() - started < 0.7
    """
    assert notebook.value(code) == "(True, True)"


def test_an_interrupted_tool_call_leaves_the_pipe_in_order(notebook):
    async def handler(name, arguments, keywords):
        await asyncio.sleep(0.3 if arguments[0] == "slow" else 0)
        return arguments[0]

    notebook.bind(["tool"], handler)

    assert notebook.run("tool('slow')", timeout_s=0.1).status is CellStatus.TIMED_OUT
    assert notebook.value("tool('quick')") == "'quick'"
    assert notebook.value("tool('slow')") == "'slow'"


def test_many_large_results_at_once_arrive(notebook):
    async def most(name, arguments, keywords):
        return "x" * 4_000_000

    notebook.bind(["read"], most)
    code = """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(20) as pool:
            print({len(text) for text in pool.map(lambda _: read(), range(20))})
    """

    assert notebook.value(code) == "{4000000}"
