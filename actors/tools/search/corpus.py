"""Reads the pages of a corpus from JSON lines, text and Markdown files, and folders of them."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from actors.tools.arguments import shown, valid_text
from common.errors import InputError
from common.json_input import numbered_lines, parse_json, read_text

TEXT_SUFFIXES = (".txt", ".md", ".markdown", ".rst")
"""Files of free text; any other file that is named is JSON lines."""

LINES_SUFFIXES = (".jsonl", ".ndjson")
"""JSON lines that are looked for in folders."""

PASSAGE_CHARACTERS = 1000
"""Longest passage of a free text with its title, so that ``search.max_characters`` cuts none."""

_HEADING = re.compile(r"^#{1,6}[^\S\n]+(\S.*)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SPACE = re.compile(r"\s+")
_BLOCK = re.compile(r".{1,4096}+\Z|.{0,4095}\s|.{1,4096}", re.DOTALL)

Page = tuple[str, str]
"""Title, and a text that begins with the title."""


def read_pages(
    paths: Sequence[Path], *, passage_characters: int = PASSAGE_CHARACTERS
) -> Iterator[Page]:
    """The pages of files and folders, in a fixed order.

    Args:
        paths: JSON lines with ``title`` and ``text``; text or Markdown files, whose title is their
            first heading, else their name; folders, in which hidden and other files are left out.
        passage_characters: a longer free text is split into passages that repeat its title.

    Raises:
        InputError: a file is missing, malformed or not UTF-8; names file and line.
    """
    for path in paths:
        for file in _files(path):
            if file.suffix.lower() in TEXT_SUFFIXES:
                yield from _read_text(file, passage_characters)
            else:
                yield from _read_lines(file)


def passages(title: str, text: str, limit: int) -> Iterator[str]:
    """Parts of ``text`` of at most ``limit`` characters, each with the title as its first line.

    Paragraphs are kept together where they fit, else sentences, else words.
    """
    room = max(1, limit - len(title) - 1)
    kept: list[str] = []
    used = 0
    for piece in _pieces(text, room):
        if kept and used + len(piece) > room:
            yield "\n".join([title, "\n\n".join(kept)])
            kept, used = [], 0
        kept.append(piece)
        used += len(piece) + len("\n\n")
    if kept:
        yield "\n".join([title, "\n\n".join(kept)])


def _files(path: Path) -> Iterable[Path]:
    if not path.is_dir():
        return [path]
    wanted = (*TEXT_SUFFIXES, *LINES_SUFFIXES)
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in wanted
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )


def _read_text(path: Path, limit: int) -> Iterator[Page]:
    text = _storable(read_text(path, what="corpus"))
    heading = _HEADING.search(text)
    title = _title(heading.group(1)) if heading else _storable(path.stem)
    if heading and not text[: heading.start()].strip():
        text = text[heading.end() :]
    for passage in passages(title, text, limit):
        yield title, passage


def _pieces(text: str, room: int) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip():
            yield from _cut(paragraph.strip(), room)


def _title(heading: str) -> str:
    """A heading without the closing hashes that Markdown allows."""
    return heading.rstrip().rstrip("#").rstrip() or heading.strip()


def _cut(paragraph: str, room: int) -> Iterator[str]:
    start = 0
    while len(paragraph) - start > room:
        end = _last_break(paragraph, start, room)
        yield paragraph[start:end]
        space = _SPACE.match(paragraph, end)
        start = space.end() if space else end
    if start < len(paragraph):
        yield paragraph[start:]


def _last_break(paragraph: str, start: int, room: int) -> int:
    """Where the last sentence, else the last word, ends that fits into ``room`` characters."""
    for pattern in (_SENTENCE_END, _SPACE):
        ends = [match.start() for match in pattern.finditer(paragraph, start, start + room + 1)]
        if ends and ends[-1] > start:
            return ends[-1]
    return start + room


def _read_lines(corpus: Path) -> Iterator[Page]:
    """The pages of a file of JSON lines, checked line by line."""
    for number, line in numbered_lines(corpus, what="corpus"):
        yield _read_page(line, f"corpus '{corpus}' line {number}")


def _read_page(line: str, where: str) -> Page:
    page = parse_json(line, where, replace_surrogates=True)
    if not isinstance(page, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(page).__name__}")
    for key in ("title", "text"):
        value = page.get(key)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: '{key}' must be a non-empty string, got {shown(value)}")
    title, text = _storable(page["title"]), _storable(page["text"])
    return title, text if text.startswith(title) else f"{title}\n{text}"


def _storable(text: str) -> str:
    """NFC text that UTF-8 can hold."""
    if text.isascii():
        return text
    return "".join(unicodedata.normalize("NFC", block) for block in blocks(valid_text(text)))


def blocks(text: str) -> list[str]:
    """The text in parts of at most 4096 characters that end in white space where there is some.

    To normalise many marks on one letter takes quadratic time.
    """
    return _BLOCK.findall(text)
