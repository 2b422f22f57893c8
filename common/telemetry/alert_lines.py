"""What the learner tells the person who watches a run at once: ``alerts.jsonl`` in its folder.

What actors start again of their own processes is in ``RESTARTS``, in the same form.

One strict JSON object per line, ``{"time": seconds since 1970, "text": words}``.
"""

import logging
import time
from pathlib import Path

from common.errors import InputError
from common.json_input import parse_json
from common.json_output import json_text

log = logging.getLogger(__name__)

RESTARTS = "restarts.jsonl"


def append_alert(file: Path, text: str) -> None:
    """Add a line; a full disk only costs the line, which is in the log as well."""
    try:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json_text({"time": time.time(), "text": text}) + "\n")
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error)


def text_of_alert(line: str) -> str:
    """The words of a line; empty for what is none of ours."""
    try:
        value = parse_json(line, "alert", replace_surrogates=True)
    except InputError:
        return ""
    text = value.get("text") if isinstance(value, dict) else None
    return text if isinstance(text, str) else ""
