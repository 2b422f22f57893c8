"""The host's end of a process that reads documents: started in a sandbox, asked, ended.

Each process has a bubblewrap sandbox of its own: no network, no file of the host but the parsers
and their libraries, another user, an empty environment. All that comes back is checked: a document
may have taken over the fork that read it.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import asdict

import msgpack

from actors.kernels import bubblewrap, sandbox_end
from actors.kernels.interface import KernelDiedError
from actors.kernels.limits.host_uids import HostUids, UidLease, release
from actors.tools.documents.files import DocumentFiles
from actors.tools.documents.kinds import DocumentKind
from actors.tools.documents.worker import (
    LARGEST_ANSWER_BYTES,
    LENGTH_BYTES,
    DocumentLimits,
    DocumentOutcome,
)
from actors.tools.last_words import LINES, captured, joined
from common.errors import MachineError

START_S = 30.0
"""An own process that needs longer to be ready has failed."""

_logger = logging.getLogger(__name__)
_GRACE_S = 5.0
_MODULE = "actors.tools.documents.worker"
_SOURCES, _LIBRARIES = "/opt/documents/sources", "/opt/documents/libraries"


class ReaderDiedError(Exception):
    """The process ended, for a reason that is not the document; the text says what it said."""


class DocumentProcess:
    """One process; ``start`` it, ``ask`` it one document at a time, ``end`` it."""

    def __init__(self, limits: DocumentLimits, uids: HostUids | None = None) -> None:
        """Describe it; as root it gets a user id of its own from ``uids``, where there is one."""
        self._limits = limits
        self._uids = uids
        self._lease: UidLease | None = None
        self._said: deque[str] = deque(maxlen=LINES)
        self._held = AsyncExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: asyncio.StreamReader | None = None
        self._requests: asyncio.StreamWriter | None = None

    @property
    def alive(self) -> bool:
        """Whether it can still be asked, as far as is known."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that the sandbox hangs on; 0 before it was started."""
        return 0 if self._process is None else self._process.pid

    async def start(self, files: DocumentFiles, *, bare: bool) -> None:
        """Start it and wait until it is ready.

        Args:
            files: what it needs.
            bare: without a sandbox, for machines that can start none.

        Raises:
            MachineError: it did not come up; says why and what to do.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                errors = await self._held.enter_async_context(captured(self._said))
                ends = (theirs.fileno(), errors.fileno())
                if bare:
                    self._process = _start_bare(files, self._limits, *ends)
                else:
                    self._lease = _lease(self._uids)
                    uid = self._lease.uid if self._lease else bubblewrap.HOST_UID
                    self._process = _start_sandboxed(files, self._limits, *ends, uid=uid)
            self._answers, self._requests = await asyncio.open_unix_connection(sock=ours)
            self._held.callback(self._requests.close)
            async with asyncio.timeout(START_S):
                outcome, _ = await self._answer()
            if outcome is not DocumentOutcome.READY:
                raise ReaderDiedError(f"its first word was {outcome}")
        except BaseException as error:
            await asyncio.shield(self.end())
            ours.close()
            if not isinstance(error, OSError | ReaderDiedError):
                raise
            words = joined(self._said)
            raise MachineError(
                "the process that reads documents did not start: "
                f"{words or str(error) or 'time-out'}. {bubblewrap.advice(words)}"
            ) from None

    async def ask(
        self, kind: DocumentKind, charset: str, data: bytes
    ) -> tuple[DocumentOutcome, str]:
        """What became of the document ``data``.

        Raises:
            ReaderDiedError: the process ended.
            TimeoutError: neither it nor its fork answered in time.
        """
        if self._requests is None:
            raise ReaderDiedError("it was not started")
        try:
            async with asyncio.timeout(self._limits.timeout_s + _GRACE_S):
                frame = msgpack.packb([str(kind), charset, len(data)])
                self._requests.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
                self._requests.write(data)
                await self._requests.drain()
                return await self._answer()
        except TimeoutError:  # which is an OSError, too
            raise
        except (OSError, ReaderDiedError) as error:
            await asyncio.shield(self.end())
            raise ReaderDiedError(joined(self._said) or str(error)) from None

    async def end(self) -> None:
        """Kill it, with all that is in its sandbox; returns when it is gone."""
        if self._process is not None and self._process.poll() is None:
            await sandbox_end.end(self._process)
        if self._answers is not None:
            with contextlib.suppress(OSError, TimeoutError):  # the end comes with the last process
                async with asyncio.timeout(_GRACE_S):
                    await self._answers.read()
        release(self._lease)
        await self._held.aclose()

    async def _answer(self) -> tuple[DocumentOutcome, str]:
        """The next answer, which whatever parsed the document may have made up.

        Raises:
            ReaderDiedError: there is none, or it is no answer.
        """
        if self._answers is None:
            raise ReaderDiedError("it was not started")
        try:
            length = int.from_bytes(await self._answers.readexactly(LENGTH_BYTES), "big")
            if length > LARGEST_ANSWER_BYTES:
                raise ReaderDiedError(f"an answer of {length} bytes")
            outcome, text = msgpack.unpackb(await self._answers.readexactly(length))
            return DocumentOutcome(outcome), _checked(text)
        except asyncio.IncompleteReadError:
            raise ReaderDiedError("it ended without a word") from None
        except (ValueError, TypeError) as error:
            raise ReaderDiedError(f"an answer of another shape: {error}"[:200]) from None


def _lease(uids: HostUids | None) -> UidLease | None:
    """A user id that no kernel and no other parser has; None where they share one."""
    if uids is None or os.geteuid() != 0:
        return None
    try:
        return uids.lease()
    except (KernelDiedError, OSError) as error:
        _logger.warning("the parsers of documents share a user id: %s", error)
        return None


def _checked(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {type(text).__name__}")
    return text


def _start_sandboxed(
    files: DocumentFiles, limits: DocumentLimits, connection: int, errors: int, *, uid: int
) -> "subprocess.Popen[bytes]":
    sandbox = bubblewrap.OuterSandbox(
        runtime=files.runtime,
        workspace_mib=1,
        as_init=True,
        read_only=((str(files.sources), _SOURCES), (str(files.libraries), _LIBRARIES)),
    )
    inside = bubblewrap.environment(files.runtime)["PYTHONPATH"]
    path = os.pathsep.join((_SOURCES, _LIBRARIES, inside))
    command = ["env", f"PYTHONPATH={path}", *_command(bubblewrap.PYTHON, limits, "sandboxed")]
    return bubblewrap.start(sandbox, command, uid=uid, stdin=connection, stderr=errors)


def _start_bare(
    files: DocumentFiles, limits: DocumentLimits, connection: int, errors: int
) -> "subprocess.Popen[bytes]":
    python = str(files.runtime.prefix / "bin" / "python3")
    path = os.pathsep.join(map(str, (files.sources, files.libraries, files.runtime.sources)))
    library_path = files.runtime.library_path.replace("/opt/rt", str(files.runtime.prefix))
    variables = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*bubblewrap.drop_privileges(), *_command(python, limits, "bare")],
        stdin=connection,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env={**variables, "PYTHONPATH": path, "LD_LIBRARY_PATH": library_path},
        cwd="/",
    )


def _command(python: str, limits: DocumentLimits, mode: str) -> list[str]:
    return [python, "-s", "-P", "-m", _MODULE, json.dumps(asdict(limits)), mode]
