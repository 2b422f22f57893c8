"""Documents become text in child processes: whatever they hold, the actor goes on."""

import asyncio
import contextlib
import io
import os
import zipfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import docx
import openpyxl
import psutil
import pypdf
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.documents.inspect_file import InspectFile
from actors.tools.documents.kinds import DocumentKind, document_kind, image_type
from actors.tools.documents.reader import DocumentReader
from actors.tools.documents.text import decoded, document_text
from actors.tools.tool import ToolCall
from common.config import Files
from common.wire.records import Task

FRENCH = "L'été dernier, le café près de la façade était fermé. Où est le garçon? Voilà, déjà là."
SLOW_PAGE = (
    b"<html><body><article>" + b"<p>word word word</p>" * 100_000 + b"</article></body></html>"
)


EARLIER: set[psutil.Process] = set()
"""Children that other tests left to this process, such as multiprocessing's own."""


@pytest.fixture(autouse=True)
def earlier() -> None:
    EARLIER.clear()
    EARLIER.update(psutil.Process().children())


def children() -> list[psutil.Process]:
    """What the test at hand started."""
    return [child for child in psutil.Process().children() if child not in EARLIER]


def cpu_seconds() -> float:
    """What the forks that parse have used, and all else that the test started."""
    used = 0.0
    for process in (*children(), *(c for p in children() for c in p.children(recursive=True))):
        with contextlib.suppress(psutil.NoSuchProcess):
            used += process.cpu_times().user
    return used


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(40):
            return await coroutine

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(limited())


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page, written by hand."""
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] /MediaBox [0 0 300 300] /Resources "
        "<< /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
    ]
    for n, line in enumerate(pages):
        stream = f"BT /F 12 Tf 20 200 Td ({line}) Tj ET"
        objects.append(f"<< /Type /Page /Parent 2 0 R /Contents {4 + 2 * n} 0 R >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    out, offsets = "%PDF-1.4\n", []
    for number, text in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    xref = f"xref\n0 {size}\n0000000000 65535 f \n{table}"
    trailer = f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return (out + xref + trailer).encode()


def locked_pdf() -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("secret")))
    writer.encrypt("password")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def word() -> bytes:
    document = docx.Document()
    document.add_heading("Report", level=1)
    document.add_paragraph("First words.")
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("a", "b"), ("1", "2")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def excel() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(["town", "sum"])
    sheet.append(["Paris", 12.5])
    sheet.append([None, None])
    book.create_sheet("Empty")
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("data/a.txt", "12345")
    return out.getvalue()


CASES = {
    "notes.txt": ("größe\nzwei".encode(), "größe\nzwei"),
    "old.txt": (FRENCH.encode("cp1252"), FRENCH),
    "wide.txt": ("größe".encode("utf-16"), "größe"),
    "table.csv": (b'town;sum\n"Paris; France";12\n', "town\tsum\nParis; France\t12"),
    "table.tsv": (b"a\tb\n1\t2\n", "a\tb\n1\t2"),
    "one.json": (b'{"b":[1,2]}', '{\n "b": [\n  1,\n  2\n ]\n}'),
    "broken.json": (b'{"b":', '{"b":'),
    "page.html": (
        b"<html><head><title>T</title></head><body><p>Hello there, this is text.</p></body></html>",
        "T\n\nHello there, this is text.",
    ),
    "two.pdf": (pdf("Hello page", "Second page"), "[page 1]\nHello page\n\n[page 2]\nSecond page"),
    "report.docx": (word(), "# Report\n\nFirst words.\n\na\tb\n1\t2"),
    "book.xlsx": (excel(), "[sheet Sales]\ntown\tsum\nParis\t12.5\n\n[sheet Empty]"),
    "all.zip": (archive(), "zip archive of 1 files (bytes, name):\n           5  data/a.txt"),
    "unknown.bin2": (b"just text", "just text"),
}


async def inspected(folder: Path, name: str, *arguments: Any, limit: int = 1000) -> Any:
    tool = InspectFile(Files(max_characters=limit), DocumentReader())
    files = tuple(str(path) for path in sorted(folder.iterdir()))
    task = Task(task_id="t", question="?", answers=("a",), files=files)
    await tool.start()
    try:
        call = ToolCall(name="inspect_file", arguments=(name, *arguments), keywords={}, task=task)
        return await tool.call(call)
    finally:
        await tool.close()


CHARSETS = ("idna", "punycode", "undefined", "base64", "utf-7", "unicode_escape", "\0", "x" * 40)


@given(st.binary(max_size=60), st.sampled_from(CHARSETS) | st.text(max_size=20))
def test_bytes_in_any_declared_encoding_are_some_text(data: bytes, charset: str) -> None:
    assert isinstance(decoded(data, charset), str)


@pytest.mark.parametrize("name", CASES)
def test_a_document_becomes_text(name: str) -> None:
    data, expected = CASES[name]
    assert document_text(data, document_kind(data, name=name)) == expected


@pytest.mark.parametrize("name", ["two.pdf", "report.docx", "book.xlsx", "page.html"])
def test_an_attached_file_is_read_in_a_child_process(name: str, tmp_path: Path) -> None:
    data, expected = CASES[name]
    (tmp_path / name).write_bytes(data)

    assert run(inspected(tmp_path, name)) == expected
    assert not children()


def test_a_long_file_is_shown_in_parts(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("0123456789" * 10)

    first = run(inspected(tmp_path, "/workspace/long.txt", limit=30))
    assert first.startswith("0123456789" * 3 + "\n[characters 0 to 30 of 100; go on at start=30]")
    assert run(inspected(tmp_path, "long.txt", 95, limit=30)) == "56789"


def test_only_attached_files_can_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "attached"
    folder.mkdir()
    (folder / "a.txt").write_text("x")
    (tmp_path / "secret.txt").write_text("x")
    for name in (
        "secret.txt",
        "../secret.txt",
        str(tmp_path / "secret.txt"),
        "/etc/passwd",
        "",
        ".",
    ):
        with pytest.raises(
            ValueError, match=r"no attached file is called .*; attached files: a\.txt"
        ):
            run(inspected(folder, name))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pdf", b"%PDF-1.7 nonsense", r"a\.pdf cannot be read: damaged pdf"),
        ("locked.pdf", locked_pdf(), "needs a password"),
        ("a.docx", b"PK\x03\x04 nonsense", "damaged docx"),
        ("a.xlsx", archive(), "damaged xlsx"),
        ("a.dat", b"\x00\x01\x02", "holds no text"),
        ("deep.json", b"[" * 200_000, "damaged json: RecursionError"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    name: str, data: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        run(inspected(tmp_path, name))


def test_an_image_is_named_for_the_tool_that_can_see(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    assert "use visual_qa" in run(inspected(tmp_path, "cat.png"))
    assert image_type(b"RIFF....WEBPVP8 ") == "image/webp"


def test_an_attached_file_that_is_gone_is_named(tmp_path: Path) -> None:
    task = Task(task_id="t", question="?", answers=("a",), files=(str(tmp_path / "gone.txt"),))
    call = ToolCall(name="inspect_file", arguments=("gone.txt",), keywords={}, task=task)
    with pytest.raises(ValueError, match=r"'gone\.txt' cannot be read: No such file"):
        run(InspectFile(Files(), DocumentReader()).call(call))


def test_an_attached_file_that_never_ends_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        task = Task(task_id="t", question="?", answers=("a",), files=(str(path),))
        call = ToolCall(name="inspect_file", arguments=(path.name,), keywords={}, task=task)
        with pytest.raises(ValueError, match="is not a plain file"):
            run(InspectFile(Files(), DocumentReader()).call(call))


def test_a_document_that_takes_too_long_ends_its_child_and_nothing_else() -> None:
    async def both() -> tuple[str, float]:
        reader = DocumentReader(workers=1, timeout_s=2.0)
        await reader.start()
        try:
            begin = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError, match="could not be read within 2 s"):
                await reader.read(SLOW_PAGE, DocumentKind.HTML)
            seconds = asyncio.get_running_loop().time() - begin
            return await reader.read(b"next", DocumentKind.TEXT), seconds
        finally:
            await reader.close()

    text, seconds = run(both())
    assert text == "next"
    assert seconds < 15
    assert not children()


def test_a_document_that_needs_too_much_memory_is_refused() -> None:
    async def both() -> str:
        reader = DocumentReader(workers=1, memory_mib=256)
        await reader.start()
        try:
            with pytest.raises(ValueError, match="it needs more memory than 256 MiB"):
                await reader.read(b"[" + b"[],[1]," * 2_000_000 + b"[]]", DocumentKind.JSON)
            return await reader.read(b"next", DocumentKind.TEXT)
        finally:
            await reader.close()

    assert run(both()) == "next"


def test_children_see_no_keys_and_are_no_more_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SERPER_API_KEY", "secret")

    async def many() -> tuple[list[str], list[dict[str, str]]]:
        reader = DocumentReader(workers=2)
        await reader.start()
        try:
            texts = await asyncio.gather(
                *(reader.read(f"text {n}".encode(), DocumentKind.TEXT) for n in range(8))
            )
            return texts, [child.environ() for child in children()]
        finally:
            await reader.close()

    texts, environments = run(many())
    assert texts == [f"text {n}" for n in range(8)]
    assert 1 <= len(environments) <= 2
    assert all(set(names) <= {"PATH"} for names in environments)


def test_an_idle_child_that_died_is_replaced() -> None:
    async def twice() -> str:
        reader = DocumentReader(workers=1)
        await reader.start()
        try:
            await reader.read(b"first", DocumentKind.TEXT)
            (child,) = children()
            child.kill()
            async with asyncio.timeout(10):
                while reader._idle[0].alive:
                    await asyncio.sleep(0.01)
            return await reader.read(b"second", DocumentKind.TEXT)
        finally:
            await reader.close()

    assert run(twice()) == "second"


@pytest.mark.parametrize("cpu_s", [0.0, 0.2], ids=["starting", "parsing"])
def test_a_cancelled_read_leaves_no_child(cpu_s: float) -> None:
    async def cancelled() -> None:
        reader = DocumentReader(workers=1)
        await reader.start()
        reading = asyncio.ensure_future(reader.read(SLOW_PAGE, DocumentKind.HTML))
        async with asyncio.timeout(10):
            while cpu_seconds() < cpu_s or not children():
                await asyncio.sleep(0.001)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await reader.close()

    run(cancelled())
    assert not children()
