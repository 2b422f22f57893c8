"""The process inside of a sandbox that turns documents into text, each in a fork of its own.

``python -m actors.tools.documents.worker LIMITS MODE``, with ``DocumentLimits`` as JSON. A frame
is its length as four bytes, big-endian, and MessagePack. Over the socket on descriptor 0 it says
``["ready", ""]``, then gets ``[kind, charset, length]`` and so many bytes of a document, and
answers ``[outcome, text]``, each time.

What strangers wrote is received and parsed in a fork that holds no other document, may start
nothing and write no file, and ends with its answer. This process imports the libraries, so that the
next fork has them, and never holds a document.

In the mode ``sandboxed``, bubblewrap made it pid 1 of a sandbox; in ``bare`` there is none.
"""

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

import msgpack

from actors.kernels.sandboxed import isolation, mounts, seccomp
from actors.tools.documents.kinds import DocumentKind
from actors.tools.documents.text import MAX_CHARACTERS, document_text

LENGTH_BYTES = 4
LARGEST_ANSWER_BYTES = 4 * MAX_CHARACTERS + (1 << 16)
_LONGEST_REASON = 500
_OPEN_FILES = 64
_NO_FILES = isolation.Limits(memory_mib=0, workspace_mib=1, processes=0, inodes=1)
"""The one inode of a folder is its own: no file can be made in it."""
_RECEIVED = b"r"
_PIECE_BYTES = 1 << 20
_PR_SET_DUMPABLE = 4
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_MODULES = {
    DocumentKind.HTML: "trafilatura",
    DocumentKind.PDF: "pypdf.filters",  # which it would import for the first document, in the fork
    DocumentKind.DOCX: "docx",
    DocumentKind.XLSX: "openpyxl",
}


class DocumentOutcome(StrEnum):
    """What became of a document, with a text: its own, or why there is none."""

    READY = "ready"
    """Of no document: the process can take one."""
    TEXT = "text"
    REFUSED = "refused"
    """The document is to blame."""
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    """Something else is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentLimits:
    """Of one document: address space in MiB, and wall time in seconds."""

    memory_mib: int
    timeout_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Document:
    kind: DocumentKind
    charset: str
    length: int


def main() -> None:
    """Answer until the connection ends, or until it is no longer known where a document begins."""
    limits = DocumentLimits(**json.loads(sys.argv[1]))
    connection = socket.socket(fileno=os.dup(0))
    os.close(0)
    _give_up(is_bare=sys.argv[2] == "bare")
    _send(connection, _packed(DocumentOutcome.READY, ""))
    while header := _received(connection, LENGTH_BYTES):
        kind, charset, length = msgpack.unpackb(
            _received(connection, int.from_bytes(header, "big"))
        )
        if module := _MODULES.get(kind):
            importlib.import_module(module)
            gc.freeze()  # what is collected nowhere is copied for no fork
        document = _Document(kind=DocumentKind(kind), charset=charset, length=length)
        is_whole, answer = _answer(connection, document, limits)
        _send(connection, answer)
        if not is_whole:
            break


def _give_up(*, is_bare: bool) -> None:
    """Keep no more rights than parsing needs; forks cannot look into this process."""
    isolation.die_with_parent()
    if not is_bare:
        program = seccomp.deny_list()
        isolation.forbid_user_namespaces()
        mounts.mount_private(_NO_FILES)
        isolation.drop_capabilities()
        seccomp.load(program)
    isolation.libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(
    connection: socket.socket, document: _Document, limits: DocumentLimits
) -> tuple[bool, bytes]:
    """Whether a fork received all of the document, and its answer, or else why there is none."""
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answers)
        _parse(connection, answer, document, limits)
    os.close(answer)
    written, is_late = _read(answers, time.monotonic() + limits.timeout_s)
    os.close(answers)
    os.kill(child, signal.SIGKILL)  # without effect where it has ended by itself
    _, status = os.waitpid(child, 0)
    is_whole = bool(written)
    if is_late:
        return is_whole, _packed(DocumentOutcome.TIMED_OUT, "")
    code = os.waitstatus_to_exitcode(status)
    return is_whole, written[1:] or _packed(*_last_words(document.kind, code))


def _last_words(kind: DocumentKind, code: int) -> tuple[DocumentOutcome, str]:
    if -code in _CRASHES:
        name = signal.Signals(-code).name
        return DocumentOutcome.REFUSED, f"damaged {kind}: the parser crashed on it ({name})"
    name = f"signal {-code}" if code < 0 else f"exit code {code}"
    return DocumentOutcome.FAILED, f"the parser's process ended without an answer ({name})"


def _read(answers: int, deadline: float) -> tuple[bytes, bool]:
    """What comes until the other end is closed, and whether that was not so at the deadline.

    Only the first byte where it is too much.
    """
    pieces: list[bytes] = []
    length = 0
    while length <= LARGEST_ANSWER_BYTES:
        ready, _, _ = select.select([answers], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return b"".join(pieces), True
        pieces.append(os.read(answers, _PIECE_BYTES))
        length += len(pieces[-1])
        if not pieces[-1]:
            return b"".join(pieces), False
    return pieces[0][:1], False


def _parse(
    connection: socket.socket, answer: int, document: _Document, limits: DocumentLimits
) -> NoReturn:
    """In the fork: receive the document, say so, read it, and end."""
    try:
        data = _received(connection, document.length)
        os.close(connection.fileno())
        os.write(answer, _RECEIVED)
        _bound(limits)
        packed = memoryview(_packed(*_outcome(document, data, limits)))
        while packed:
            packed = packed[os.write(answer, packed) :]
        os._exit(0)
    finally:
        os._exit(1)


def _received(connection: socket.socket, length: int) -> bytes:
    """The next ``length`` bytes; fewer where the connection ended."""
    pieces: list[bytes] = []
    while length > 0 and (piece := connection.recv(min(length, _PIECE_BYTES))):
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def _outcome(
    document: _Document, data: bytes, limits: DocumentLimits
) -> tuple[DocumentOutcome, str]:
    try:
        return DocumentOutcome.TEXT, document_text(data, document.kind, document.charset)
    except ValueError as error:
        return DocumentOutcome.REFUSED, str(error)[:_LONGEST_REASON]
    except MemoryError:
        return DocumentOutcome.REFUSED, f"it needs more memory than {limits.memory_mib} MiB"
    except ImportError as error:
        return DocumentOutcome.FAILED, f"{type(error).__name__}: {error}"[:_LONGEST_REASON]


def _bound(limits: DocumentLimits) -> None:
    """No more processes, no files, no more memory than ``limits``; nothing to say on the side."""
    isolation.die_with_parent()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    for which, value in (
        (resource.RLIMIT_AS, limits.memory_mib << 20),
        (resource.RLIMIT_CPU, int(limits.timeout_s) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(which, (value, value))


def _packed(outcome: DocumentOutcome, text: str) -> bytes:
    packed: bytes = msgpack.packb([str(outcome), text])
    return packed


def _send(connection: socket.socket, packed: bytes) -> None:
    connection.sendall(len(packed).to_bytes(LENGTH_BYTES, "big") + packed)


if __name__ == "__main__":
    main()
