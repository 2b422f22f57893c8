"""Writes files that are whole as soon as they exist, whoever is killed meanwhile."""

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put ``text`` into ``path`` as UTF-8 in one step; a reader sees the old file or the new."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
