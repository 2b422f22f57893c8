"""Where the user keeps what can be made or brought again."""

import os
from pathlib import Path


def user_cache() -> Path:
    """``XDG_CACHE_HOME``, or ``~/.cache``; not absolute where the user has no home."""
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
