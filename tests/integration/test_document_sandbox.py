"""A document that takes over its parser gains nothing, and leaves nothing to the next one."""

import asyncio
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import psutil
import pytest
import uvloop

from actors.kernels import bubblewrap
from actors.kernels.limits.host_uids import HostUids
from actors.tools.documents.files import DocumentFiles, find_document_files
from actors.tools.documents.kinds import DocumentKind
from actors.tools.documents.process import DocumentProcess, ReaderDiedError
from actors.tools.documents.reader import DocumentReader
from actors.tools.documents.worker import DocumentLimits, DocumentOutcome
from common.child_process import SOURCE_ROOT
from common.errors import MachineError

pytestmark = pytest.mark.sandbox

TAKEN_OVER = '''
"""A parser that does what its document says, as one with a hole might."""

import builtins, os, signal, socket, sys

MAX_CHARACTERS = 1000

def document_text(data, kind, charset=""):
    said = {}
    exec(data.decode(), said)
    return str(said.get("text", ""))
'''
LIMITS = DocumentLimits(memory_mib=512, timeout_s=0.4)
Ask = Callable[[str], tuple[DocumentOutcome, str]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocumentFiles]:
    """The real files, but for the parser."""
    real = find_document_files()
    sources = real.runtime.prefix / f"test-documents-{os.getpid()}"
    shutil.copytree(real.sources, sources)
    for compiled in sources.rglob("__pycache__"):
        shutil.rmtree(compiled)
    (sources / "actors" / "tools" / "documents" / "text.py").write_text(TAKEN_OVER)
    yield dataclasses.replace(real, sources=sources)
    shutil.rmtree(sources)


class Taken:
    """A process whose parser obeys; ``ask`` runs code in the fork that reads a document."""

    def __init__(self, runner: asyncio.Runner, process: DocumentProcess) -> None:
        self._runner, self.process = runner, process

    def ask(self, code: str) -> tuple[DocumentOutcome, str]:
        asking = self.process.ask(DocumentKind.TEXT, "", code.encode())
        return self._runner.run(asking)


@pytest.fixture(scope="module")
def taken(files: DocumentFiles) -> Iterator[Taken]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        process = DocumentProcess(LIMITS)
        before = set(psutil.Process().children())
        runner.run(process.start(files, bare=False))
        yield Taken(runner, process)
        assert process.alive
        runner.run(process.end())
        assert set(psutil.Process().children()) <= before


def attempt(code: str) -> str:
    """Code whose text is ``done``, or what it raised."""
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    caught = "except BaseException as error:\n    text = repr(error)"
    return f"import os, socket, ctypes\ntry:\n{lines}\n    text = 'done'\n{caught}"


@pytest.mark.parametrize(
    "code",
    [
        "socket.create_connection(('127.0.0.1', 22), timeout=1)",
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "open('/etc/shadow').read()",
        f"os.listdir({str(SOURCE_ROOT)!r})",
        "os.listdir('/root')",
        "os.listdir('/home')",
        "open('/proc/1/mem', 'r+b')",
        "open('/proc/1/environ').read()",
        "open('/tmp/left', 'w')",
        "open('/workspace/left', 'w')",
        "open('/dev/shm/left', 'w')",
        "os.mkdir('/tmp/left')",
        "open('/proc/meminfo').read()",
        "open('/proc/loadavg').read()",
        "open('/proc/self/oom_score_adj', 'w').write('0')",
        "os.symlink('x', '/workspace/left')",
        "open('/opt/documents/sources/x.py', 'w')",
        "open('/opt/documents/libraries/x.py', 'w')",
        "os.fork()",
        "os.posix_spawn('/usr/bin/env', ['env'], {})",
        "import threading; threading.Thread(target=print).start()",
        "os.setuid(0)",
        "os.kill(-1, 15)",
        "assert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))",
    ],
)
def test_a_parser_that_was_taken_over_can_do_nothing(taken: Taken, code: str) -> None:
    outcome, text = taken.ask(attempt(code))
    assert outcome is DocumentOutcome.TEXT
    assert text != "done"


def test_it_is_another_user_with_an_empty_environment_and_no_rights(taken: Taken) -> None:
    code = (
        "import json, os\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
        "text = json.dumps([os.getuid(), os.getpid() > 1, sorted(os.environ),"
        " {k: status[k].strip() for k in ('CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp')},"
        " sorted(os.listdir('/')), len(os.listdir('/proc/self/fd'))])"
    )
    uid, is_child, names, status, root, descriptors = json.loads(taken.ask(code)[1])

    assert (uid, is_child) == (1000, True)
    assert "SERPER_API_KEY" not in names
    assert set(names) <= set(bubblewrap.environment(find_document_files().runtime)) | {"PWD"}
    assert status == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert not {"root", "home", "var"} & set(root)
    assert descriptors <= 6
    if os.geteuid() == 0:
        inside = taken.process.pid
        uids = {child.uids().real for child in psutil.Process(inside).children(recursive=True)}
        assert uids
        assert 0 not in uids


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give out user ids")
def test_each_process_is_a_user_of_its_own_while_it_lives() -> None:
    async def users() -> list[int]:
        uids, files = HostUids(1_900_500_000, 5), find_document_files()
        found = []
        for _ in range(2):  # the second round needs the ids of the first
            processes = [DocumentProcess(LIMITS, uids) for _ in range(3)]
            for process in processes:
                await process.start(files, bare=False)
            tops = [psutil.Process(process.pid) for process in processes]
            found += [top.children(recursive=True)[-1].uids().real for top in tops]
            for process in processes:
                await process.end()
        return found

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(users())
    assert len(set(found[:3])) == 3
    assert set(found[:3]) == set(found[3:])
    assert all(uid in range(1_900_500_000, 1_900_500_005) for uid in found)


def test_nothing_is_left_for_the_next_document(taken: Taken) -> None:
    taken.ask("import builtins, sys\nbuiltins.left = sys.left = 1\ntext = 'x'")
    taken.ask("import actors.tools.documents.text as d\nd.document_text = None\ntext = 'x'")
    code = "import builtins, sys\ntext = (hasattr(builtins, 'left'), hasattr(sys, 'left'))"
    assert taken.ask(code) == (DocumentOutcome.TEXT, "(False, False)")


@pytest.mark.parametrize(
    ("code", "outcome", "message"),
    [
        (
            "import os; os.kill(os.getpid(), 11)",
            DocumentOutcome.REFUSED,
            "the parser crashed on it (SIGSEGV",
        ),
        ("import os; os._exit(3)", DocumentOutcome.FAILED, "ended without an answer (exit code 3)"),
        (
            "import os; os.kill(os.getpid(), 9)",
            DocumentOutcome.FAILED,
            "without an answer (signal 9)",
        ),
        ("while True: pass", DocumentOutcome.TIMED_OUT, ""),
        ("import time; time.sleep(60)", DocumentOutcome.TIMED_OUT, ""),
        ("import signal; signal.pause()", DocumentOutcome.TIMED_OUT, ""),
        ("bytearray(1 << 30)", DocumentOutcome.REFUSED, "it needs more memory than 512 MiB"),
        ("import nothing_like_it", DocumentOutcome.FAILED, "No module named 'nothing_like_it'"),
        ("raise ValueError('x' * 10_000)", DocumentOutcome.REFUSED, "x" * 500),
    ],
    ids=["segv", "exit", "kill", "spin", "sleep", "pause", "memory", "import", "long"],
)
def test_a_fork_that_ends_badly_is_that_document_s_end_alone(
    taken: Taken, code: str, outcome: DocumentOutcome, message: str
) -> None:
    before = taken.process.pid
    said = taken.ask(code)
    assert said[0] is outcome
    assert message in said[1]
    assert len(said[1]) <= 600
    assert taken.ask("text = 'next'") == (DocumentOutcome.TEXT, "next")
    assert taken.process.pid == before


FORGED = {
    "no messagepack": "b'\\xc1'",
    "another shape": repr(msgpack.packb({"text": 1})),
    "no text": repr(msgpack.packb(["text", 7])),
    "no outcome": repr(msgpack.packb(["paid", "x"])),
    "no unicode": "b'\\x92\\xa4text\\xa2\\xff\\xfe'",
    "deep": "b'\\x91' * 50_000 + b'\\x90'",
    "promise of much": "b'\\x92\\xa4text\\xdb\\xff\\xff\\xff\\xff'",
    "more": repr(msgpack.packb(["text", "x"]) + b"more"),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_answer_is_no_answer(files: DocumentFiles, forged: str) -> None:
    code = (
        "import os\n"
        "for number in range(3, 64):\n"
        f"    try: os.write(number, {forged})\n"
        "    except OSError: pass\n"
        "os._exit(0)"
    )

    async def asked() -> None:
        process = DocumentProcess(LIMITS)
        await process.start(files, bare=False)
        try:
            with pytest.raises(ReaderDiedError, match="an answer of another shape"):
                await process.ask(DocumentKind.TEXT, "", code.encode())
            assert not process.alive
        finally:
            await process.end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asked())


def test_an_answer_without_end_is_cut_off(taken: Taken) -> None:
    code = (
        "import os, stat\n"
        "pipes = [n for n in range(3, 64) if os.path.exists(f'/proc/self/fd/{n}')"
        " and stat.S_ISFIFO(os.fstat(n).st_mode)]\n"
        "while True: os.write(pipes[-1], bytes(1 << 20))"
    )
    outcome, text = taken.ask(code)
    assert outcome is DocumentOutcome.FAILED
    assert "without an answer" in text


def test_a_sandbox_that_does_not_start_says_why_and_no_document_is_called_damaged(
    files: DocumentFiles, tmp_path: Path
) -> None:
    broken = files.sources.with_name(f"{files.sources.name}-broken")
    shutil.copytree(files.sources, broken)
    (broken / "actors" / "tools" / "documents" / "text.py").write_text("import gone_library")
    cases = {
        "No module named 'gone_library'": broken,
        "Can't find source path": tmp_path / "nowhere",
    }

    async def start(sources: Path) -> None:
        process = DocumentProcess(LIMITS)
        await process.start(dataclasses.replace(files, sources=sources), bare=False)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for message, sources in cases.items():
                with pytest.raises(MachineError, match=rf"did not start: .*{message}"):
                    runner.run(start(sources))
    finally:
        shutil.rmtree(broken)


@pytest.mark.parametrize("may_do_without", [False, True])
def test_without_a_sandbox_nothing_is_read_unless_the_configuration_says_so(
    may_do_without: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bubblewrap, "arguments", lambda *_: ["--no-such-option"])

    async def read() -> str:
        reader = DocumentReader(unsafe_no_sandbox=may_do_without)
        await reader.start()
        try:
            return await reader.read(b"hello", DocumentKind.TEXT)
        finally:
            await reader.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if may_do_without:
            assert runner.run(read()) == "hello"
            assert "NO SANDBOX: documents are parsed by plain processes" in caplog.text
        else:
            with pytest.raises(MachineError, match=r"did not start: .*no-such-option"):
                runner.run(read())


def test_documents_are_read_by_this_checkout_wherever_the_actor_was_started(tmp_path: Path) -> None:
    for name in ("actors", "common"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    script = (
        "import asyncio\n"
        "from actors.tools.documents.kinds import DocumentKind\n"
        "from actors.tools.documents.reader import DocumentReader\n"
        "async def main():\n"
        "    reader = DocumentReader()\n"
        "    await reader.start()\n"
        "    print(await reader.read(b'a;b\\n1;2', DocumentKind.TABLE))\n"
        "    await reader.close()\n"
        "asyncio.run(main())\n"
    )
    path = os.pathsep.join((str(SOURCE_ROOT), str(tmp_path)))
    result = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout.strip() == "a\tb\n1\t2", result.stderr
