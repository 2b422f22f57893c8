"""The records of a file: JSON, JSON lines, CSV, TSV or parquet, each also compressed (gzip).

What a file is, its content says: parquet and gzip by their first bytes, JSON by its first bracket.
Only CSV and TSV are known by their name, as nothing in them says so; a CSV file whose head has
semicolons and no comma has semicolons between its fields, as spreadsheets of many countries write
it.
"""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.json_input import parse_json, read_bytes, text_of

Row = Mapping[str, Any]
"""The fields of one record."""

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_TABLES = {".csv": ",", ".tsv": "\t"}
_WRAPPERS = ("Data", "data")
"""Fields under which some sets keep the list of all their records."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One record and where it stands: file and line or number, for errors."""

    where: str
    row: Row


def read_records(file: Path, *, what: str) -> list[FileRecord]:
    """All records of a file, in file order.

    Args:
        file: its name decides only between comma and tab in tables.
        what: begins the text of an error, e.g. ``file``.

    Raises:
        InputError: it is missing, cannot be read, is of no known form, or a record is no object;
            names the line.
    """
    data = read_bytes(file, what=what)
    name = file.name.lower()
    if data.startswith(_GZIP):
        data, name = _unpacked(data, file), name.removesuffix(".gz")
    if data.startswith(_PARQUET):
        return list(_parquet(data, file))
    text = text_of(data, f"{what} {file}")
    if separator := _TABLES.get(Path(name).suffix):
        return list(_table(text, _separator_in(text, separator), file))
    start = text.lstrip("\ufeff \t\r\n")
    if start.startswith("["):
        return _listed(parse_json(start, str(file), replace_surrogates=True), file)
    if not start or start.startswith("{"):
        return _lines_or_object(text, file)
    raise InputError(
        f"{file} is neither JSON, JSON lines nor parquet, and is not called .csv or .tsv; it "
        f"begins with {start[:20]!r}"
    )


def _unpacked(data: bytes, file: Path) -> bytes:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file} is no whole gzip file: {error}; fetch it again") from error


def _parquet(data: bytes, file: Path) -> Iterator[FileRecord]:
    import pyarrow  # takes a second, and most files are JSON
    from pyarrow import parquet

    try:
        # parquet.read_table, and any threads, may abort the process when it ends (pyarrow 24.0)
        table = parquet.ParquetFile(pyarrow.BufferReader(data)).read(use_threads=False)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file} is no readable parquet file: {error}") from error
    _check_names(table.column_names, file)
    for number, row in enumerate(rows, start=1):
        yield FileRecord(f"{file}, record {number}", row)


def _separator_in(text: str, usual: str) -> str:
    head = text.partition("\n")[0]
    return ";" if usual == "," and "," not in head and ";" in head else usual


def _table(text: str, separator: str, file: Path) -> Iterator[FileRecord]:
    # A field may hold a page. The limit is of the whole process, so it is never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        _check_names(reader.fieldnames or (), file)
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise InputError(
                    f"{file}, record {number}: it has not as many fields as the head "
                    f"({', '.join(reader.fieldnames or ())})"
                )
            yield FileRecord(f"{file}, record {number}", row)
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: not valid CSV: {error}") from error


def _check_names(names: Sequence[str], file: Path) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{file}: field '{twice}' occurs twice; which of them counts?")


def _lines_or_object(text: str, file: Path) -> list[FileRecord]:
    """JSON lines, or one object that holds the list of all records."""
    numbered = enumerate(text.split("\n"), start=1)
    lines = [(n, line) for n, line in numbered if line.strip("\ufeff \t\r")]
    if (whole := _whole_object(text, lines)) is not None:
        return _listed(_wrapped(whole), file)
    records = [_line(line, f"{file}, line {number}") for number, line in lines]
    if len(records) == 1 and isinstance(inside := _wrapped(records[0].row), list):
        return _listed(inside, file)
    return records


def _whole_object(text: str, lines: list[tuple[int, str]]) -> Row | None:
    """The one object that a file is, over several lines."""
    try:
        if lines:
            json.loads(lines[0][1].lstrip("\ufeff"))
        return None
    except (ValueError, RecursionError):
        pass
    try:
        whole = parse_json(text, "", replace_surrogates=True)
    except InputError:
        return None  # the line says better what is wrong
    return whole if isinstance(whole, dict) else None


def _wrapped(whole: Row) -> Any:
    found = [whole[name] for name in _WRAPPERS if isinstance(whole.get(name), list)]
    return found[0] if found else [whole]


def _line(line: str, where: str) -> FileRecord:
    value = parse_json(line.lstrip("\ufeff"), where, replace_surrogates=True)
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, got {value!r:.60}")
    return FileRecord(where, value)


def _listed(values: list[Any], file: Path) -> list[FileRecord]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise InputError(f"{file}, record {number}: expected a JSON object, got {value!r:.60}")
    return [FileRecord(f"{file}, record {number}", row) for number, row in enumerate(values, 1)]
