"""What kind of document some bytes are, by their first bytes, their media type and their name."""

from enum import StrEnum
from pathlib import PurePosixPath


class DocumentKind(StrEnum):
    """What ``actors/tools/documents/text.py`` makes text of, and what it cannot."""

    TEXT = "text"
    TABLE = "table"
    JSON = "json"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    XLSX = "xlsx"
    ZIP = "zip"
    IMAGE = "image"
    OTHER = "other"


_SUFFIXES = {
    ".csv": DocumentKind.TABLE,
    ".tsv": DocumentKind.TABLE,
    ".json": DocumentKind.JSON,
    ".htm": DocumentKind.HTML,
    ".html": DocumentKind.HTML,
    ".xhtml": DocumentKind.HTML,
    ".docx": DocumentKind.DOCX,
    ".xlsx": DocumentKind.XLSX,
    ".xlsm": DocumentKind.XLSX,
}
_MEDIA_TYPES = {
    "text/csv": DocumentKind.TABLE,
    "text/tab-separated-values": DocumentKind.TABLE,
    "application/json": DocumentKind.JSON,
    "text/html": DocumentKind.HTML,
    "application/xhtml+xml": DocumentKind.HTML,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": DocumentKind.DOCX,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": DocumentKind.XLSX,
}
_PACKED = (DocumentKind.DOCX, DocumentKind.XLSX)
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
}
_SNIFFED_BYTES = 4096


def document_kind(data: bytes, *, name: str = "", media_type: str = "") -> DocumentKind:
    """The kind of ``data``.

    Args:
        data: the whole document.
        name: file name, for its ending; or empty.
        media_type: of a ``Content-Type`` header; or empty.
    """
    suffix = PurePosixPath(name).suffix.lower()
    told = _MEDIA_TYPES.get(media_type.partition(";")[0].strip().lower()) or _SUFFIXES.get(suffix)
    if data[:1024].lstrip().startswith(b"%PDF-"):
        return DocumentKind.PDF
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return told if told in _PACKED else DocumentKind.ZIP
    if image_type(data):
        return DocumentKind.IMAGE
    if told is not None and told not in _PACKED:
        return told
    if is_binary(data):
        return DocumentKind.OTHER
    head = data[:_SNIFFED_BYTES].lstrip().lower()
    is_html = head.startswith((b"<!doctype html", b"<html"))
    return DocumentKind.HTML if is_html else DocumentKind.TEXT


def image_type(data: bytes) -> str:
    """The media type of an image that vision models take, by its first bytes; else empty."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in _IMAGES.items() if data.startswith(start)), "")


def is_binary(data: bytes) -> bool:
    """Whether it is no text: it holds zero bytes and is not UTF-16."""
    head = data[:_SNIFFED_BYTES]
    return b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff"))
