"""The passages of a corpus file, in the ways in which such files are written."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.json_input import parse_json, read_bytes, text_of
from launch.data.sources.entries import Passage
from launch.data.sources.fields import joined
from launch.data.sources.reading import Row, read_records

_BINARY = (b"\x1f\x8b", b"PAR1")


def read_passages(file: Path) -> Iterator[Passage]:
    """The passages of a file.

    It holds an object of title to sentences, or records with ``title`` and ``text`` (or
    ``paragraph_text``), or with ``contents``, whose first line is the title.

    Raises:
        InputError: it is missing or written otherwise; names the page.
    """
    by_title = _titles_to_sentences(file)
    if by_title is None:
        for record in read_records(file, what="corpus"):
            yield _passage(record.row, record.where)
        return
    for title, sentences in by_title.items():
        try:
            yield title, joined(sentences)
        except ValueError as error:
            raise InputError(f"{file}, page {title[:60]!r}: {error}") from error


def write_passages(passages: Iterable[Passage], path: Path) -> int:
    """Write those that say something, one JSON line each, in one step; how many.

    Where there are none no file is left, not even an older one.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        written = _write(passages, partial)
        if written:
            partial.replace(path)
        else:
            path.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)
    return written


def _write(passages: Iterable[Passage], path: Path) -> int:
    written = 0
    with path.open("w", encoding="utf-8") as file:
        for title, text in passages:
            if title.strip() and text.strip():
                file.write(json.dumps({"title": title, "text": text}, ensure_ascii=False) + "\n")
                written += 1
    return written


def _passage(row: Row, where: str) -> Passage:
    if isinstance(row.get("contents"), str) and "title" not in row:
        title, _, body = row["contents"].partition("\n")
        return title.strip().strip('"'), body
    title, text = row.get("title"), row.get("text", row.get("paragraph_text"))
    if not isinstance(title, str) or not isinstance(text, str):
        raise InputError(f"{where}: expected texts 'title' and 'text', or 'contents'")
    return title, text


def _titles_to_sentences(file: Path) -> dict[str, Any] | None:
    """The corpus as one object of title to sentences, or None where it is written otherwise."""
    data = read_bytes(file, what="corpus")
    text = "" if data.startswith(_BINARY) else text_of(data, f"corpus {file}")
    if not text.lstrip().startswith("{"):
        return None
    try:
        table = parse_json(text, str(file), replace_surrogates=True)
    except InputError as error:
        if isinstance(error.__cause__, json.JSONDecodeError):
            return None  # JSON lines
        raise
    is_page = isinstance(table.get("title"), str) and {"text", "paragraph_text"} & set(table)
    return None if is_page or "contents" in table else dict(table)
