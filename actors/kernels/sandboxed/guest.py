"""What the host calls by silent cells in a Python kernel that is not ours to change."""

import base64

from actors.kernels.sandboxed.serve import write_file
from actors.kernels.sandboxed.toolclient import connect

__all__ = ["connect", "put_piece"]


def put_piece(name: str, data: bytes, goes_on: bool) -> None:
    """Write or go on writing a file of the working folder; ``data`` is base64.

    Raises:
        OSError: it could not be written.
    """
    problem = write_file("/workspace", name, base64.b64decode(data), goes_on)
    if problem:
        raise OSError(problem)
