"""Text of documents: web pages, PDF, Word, Excel, tables, JSON, archives.

Parsing what strangers wrote may take any time and memory, so this runs in a process of its own,
``actors/tools/documents/worker.py``, in a sandbox.
"""

import codecs
import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping

from actors.tools.documents.kinds import DocumentKind

MAX_CHARACTERS = 4_000_000
"""Text beyond this is dropped, with a note."""

MAX_ROWS = 20_000
"""Rows of one table or sheet that are shown."""

_NO_ENCODINGS_OF_TEXT = ("idna", "punycode", "raw-unicode-escape", "unicode-escape", "undefined")
"""What Python decodes by, but no document is written in."""


def document_text(data: bytes, kind: DocumentKind, charset: str = "") -> str:
    """The text of a document.

    Args:
        data: the whole document.
        kind: one that holds text.
        charset: encoding that its source declared; or empty.

    Raises:
        ValueError: it cannot be parsed; says why.
        MemoryError: parsing it needs more than this process may have.
        ImportError: a library is missing.
    """
    try:
        text = _READERS[kind](data, charset)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # parsers raise whatever they like for a damaged file
        raise ValueError(f"damaged {kind}: {type(error).__name__}: {error}") from error
    text = text.encode("utf-8", "replace").decode("utf-8").strip()
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n[{len(text) - MAX_CHARACTERS} more characters were dropped]"


def decoded(data: bytes, charset: str = "") -> str:
    """Text in the encoding declared, else UTF-16 with a mark, UTF-8, or what old Windows wrote.

    Guessing more cleverly goes wrong for short texts.
    """
    marked = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    for encoding in (charset, marked, "utf-8-sig"):
        try:
            if encoding and codecs.lookup(encoding).name not in _NO_ENCODINGS_OF_TEXT:
                return data.decode(encoding)
        except (LookupError, ValueError):  # no such encoding, or not in it
            continue
    return data.decode("cp1252", "replace")


def _html(data: bytes, charset: str) -> str:
    """The article of a page as Markdown under its title; all its text where there is none."""
    import trafilatura

    page = decoded(data, charset) if charset else data
    tree = trafilatura.load_html(page)
    if tree is None:
        return decoded(data, charset)
    title = " ".join((tree.findtext(".//title") or "").split())
    body = trafilatura.extract(page, output_format="markdown", include_tables=True) or ""
    body = body or trafilatura.html2txt(page)
    is_told = not title or body.partition("\n")[0] in (title, f"# {title}")
    return body if is_told else f"{title}\n\n{body}"


def _pdf(data: bytes, _charset: str) -> str:
    import pypdf

    reader = pypdf.PdfReader(io.BytesIO(data))
    if reader.is_encrypted and not reader.decrypt(""):
        raise ValueError("it needs a password")
    pages, characters = [], 0
    for number, page in enumerate(reader.pages, start=1):
        pages.append(f"[page {number}]\n{page.extract_text().strip()}")
        characters += len(pages[-1])
        if characters > MAX_CHARACTERS:
            break
    return "\n\n".join(pages)


def _docx(data: bytes, _charset: str) -> str:
    import docx
    from docx.table import Table

    blocks = []
    for block in docx.Document(io.BytesIO(data)).iter_inner_content():
        if isinstance(block, Table):
            blocks.append(_rows([cell.text for cell in row.cells] for row in block.rows))
        else:
            style = (block.style.name if block.style is not None else "") or ""
            level = style.removeprefix("Heading ") if style.startswith("Heading ") else ""
            mark = "#" * int(level) + " " if level.isdigit() else ""
            blocks.append(mark + block.text)
    return "\n\n".join(block for block in blocks if block.strip())


def _xlsx(data: bytes, _charset: str) -> str:
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    sheets = []
    for sheet in book.worksheets:
        rows = _rows(
            ("" if value is None else str(value) for value in row)
            for row in sheet.iter_rows(values_only=True)
        )
        sheets.append(f"[sheet {sheet.title}]\n{rows}")
    return "\n\n".join(sheets)


def _table(data: bytes, charset: str) -> str:
    """Tab-separated rows, whatever separates them in the file."""
    text = decoded(data, charset)
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:10_000], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    return _rows(csv.reader(io.StringIO(text, newline=""), dialect))


def _rows(rows: Iterable[Iterable[str]]) -> str:
    lines: list[str] = []
    hidden = 0
    for row in rows:
        if len(lines) < MAX_ROWS:
            cells = [" ".join(cell.split()) for cell in row]
            lines.append("\t".join(cells).rstrip())
        else:
            hidden += 1
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join([*lines, f"[{hidden} more rows]"] if hidden else lines)


def _json(data: bytes, charset: str) -> str:
    text = decoded(data, charset)
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    except ValueError:
        return text


def _zip(data: bytes, _charset: str) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files = [info for info in archive.infolist() if not info.is_dir()]
    lines = [f"{info.file_size:>12}  {info.filename}" for info in files]
    return "\n".join([f"zip archive of {len(files)} files (bytes, name):", *lines])


_READERS: Mapping[DocumentKind, Callable[[bytes, str], str]] = {
    DocumentKind.TEXT: decoded,
    DocumentKind.TABLE: _table,
    DocumentKind.JSON: _json,
    DocumentKind.HTML: _html,
    DocumentKind.PDF: _pdf,
    DocumentKind.DOCX: _docx,
    DocumentKind.XLSX: _xlsx,
    DocumentKind.ZIP: _zip,
}
