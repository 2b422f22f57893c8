"""What the host calls by silent cells in a Python kernel that is not ours to change."""

import base64
import sys
from collections.abc import Sequence
from typing import Any

from actors.kernels.sandboxed.serve import write_file
from actors.kernels.sandboxed.toolclient import connect, connected

__all__ = ["connect", "connect_foreign", "put_piece"]


def connect_foreign(tools: Sequence[Sequence[Any]], namespace: dict[str, Any]) -> None:
    """Bind ``tools`` in a kernel that is not of ours; if it is IPython, again after each cell."""
    connect(tools, namespace)
    if "get_ipython" in namespace:
        events = namespace["get_ipython"]().events
        events.register("pre_run_cell", _begin_cell)
        events.register("post_run_cell", _end_cell)


def _begin_cell(_info: Any) -> None:
    if tools := connected():
        tools.begin_cell()


def _end_cell(_result: Any) -> None:
    if tools := connected():
        sys.stdout.write(tools.end_cell())


def put_piece(name: str, data: bytes, goes_on: bool) -> None:
    """Write or go on writing a file of the working folder; ``data`` is base64.

    Raises:
        OSError: it could not be written.
    """
    problem = write_file("/workspace", name, base64.b64decode(data), goes_on)
    if problem:
        raise OSError(problem)
