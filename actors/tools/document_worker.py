"""Child process that turns documents into text: ``python -m actors.tools.document_worker MIB``.

Reads frames from standard input and answers each on standard output; a frame is its length as four
bytes, big-endian, and MessagePack: ``[kind, charset, data]`` in, ``[text, error]`` out. It has
none of the actor's variables, and ends with the actor or at a time limit. Its address space is
limited to as many MiB as its argument says.
"""

import contextlib
import ctypes
import resource
import signal
import sys
from typing import BinaryIO

import msgpack

from actors.tools.document_kinds import DocumentKind
from actors.tools.documents import document_text

LIMIT_S = 60
"""Seconds for one document before the kernel ends this process, should nobody else."""

LENGTH_BYTES = 4
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer until the input ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    limit = int(sys.argv[1]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.redirect_stdout(sys.stderr):
        while frame := _read(requests):
            signal.alarm(LIMIT_S)
            reply = msgpack.packb(_answer(frame))
            answers.write(len(reply).to_bytes(LENGTH_BYTES, "big") + reply)
            answers.flush()
            signal.alarm(0)


def _read(stream: BinaryIO) -> bytes:
    length = int.from_bytes(stream.read(LENGTH_BYTES), "big")
    return stream.read(length)


def _answer(frame: bytes) -> list[str]:
    kind, charset, data = msgpack.unpackb(frame)
    try:
        return [document_text(data, DocumentKind(kind), charset), ""]
    except ValueError as error:
        return ["", str(error)[:500]]
    except MemoryError:
        return ["", f"damaged {kind}: it needs too much memory"]


if __name__ == "__main__":
    main()
