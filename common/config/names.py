"""What runs, suites and the like may be called."""

LONGEST_NAME = 128
"""Bytes of a name; folders and files get it with something behind."""


def name_fault(name: str) -> str:
    """What is wrong with a name that a folder gets and that stands in log lines; or nothing."""
    if not name or name in (".", "..") or "/" in name:
        return "a plain folder name"
    if not name.isprintable() or name != name.strip():
        return "a folder name without control characters or spaces at its ends"
    if len(name.encode("utf-8", "replace")) > LONGEST_NAME:
        return f"a folder name of at most {LONGEST_NAME} bytes"
    return ""
