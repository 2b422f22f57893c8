"""Files that are whole as soon as they exist, and names that are durable, whoever is killed."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put ``text`` into ``path`` as UTF-8 in one step; a reader sees the old file or the new."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    if folder.is_dir():
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
