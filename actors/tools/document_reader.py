"""Turns documents into text in child processes, so that the event loop never waits for a parser."""

import asyncio
import contextlib
import hashlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

import msgpack

from actors.tools.document_kinds import DocumentKind
from actors.tools.document_worker import LENGTH_BYTES
from actors.tools.excerpts import TextMemory

WORKERS = 2
"""Child processes at most; a document waits for a free one."""

TIMEOUT_S = 30.0
"""Wall time for one document."""

MEMORY_MIB = 2048
"""Address space of a child."""

KEPT_CHARACTERS = 32 << 20
"""Texts of documents read last that are kept, in total."""

_IN_PROCESS_BYTES = 1 << 16


class DocumentReader:
    """Shared by the tools that read documents; each starts and closes it."""

    def __init__(
        self,
        *,
        workers: int = WORKERS,
        timeout_s: float = TIMEOUT_S,
        memory_mib: int = MEMORY_MIB,
    ) -> None:
        """Describe it; children are started when they are needed."""
        self._memory_mib = memory_mib
        self._free = asyncio.Semaphore(workers)
        self._timeout_s = timeout_s
        self._idle: list[Process] = []
        self._known = TextMemory(KEPT_CHARACTERS)
        self._users = 0

    async def start(self) -> None:
        """Count one more user."""
        self._users += 1

    async def close(self) -> None:
        """End the children when the last user is gone."""
        self._users -= 1
        if self._users == 0:
            while self._idle:
                await _end(self._idle.pop())

    async def read(self, data: bytes, kind: DocumentKind, charset: str = "") -> str:
        """The text of a document.

        Raises:
            ValueError: it is damaged, needs too much memory, or cannot be text.
            TimeoutError: it took too long.
        """
        if kind in (DocumentKind.IMAGE, DocumentKind.OTHER):
            raise ValueError(f"it holds no text ({len(data)} bytes, kind {kind})")
        key = f"{kind} {charset} {await _digest(data)}"
        text = self._known.get(key)
        if text is None:
            async with self._free:
                text = await self._ask(msgpack.packb([str(kind), charset, data]))
            self._known.put(key, text)
        return text

    async def _worker(self) -> Process:
        while self._idle:
            worker = self._idle.pop()
            if worker.returncode is None:
                return worker
            await _end(worker)
        starting = asyncio.ensure_future(_begin(self._memory_mib))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:  # asyncio loses a child that is given up while it starts
            await _end(await starting)
            raise

    async def _ask(self, frame: bytes) -> str:
        worker = await self._worker()
        is_well = False
        try:
            async with asyncio.timeout(self._timeout_s):
                text, error = msgpack.unpackb(await _exchange(worker, frame))
            is_well = True
        except TimeoutError:  # which is an OSError, too
            raise TimeoutError(
                f"the document could not be read within {self._timeout_s:g} s"
            ) from None
        except (EOFError, OSError):
            raise ValueError("damaged: the parser died of it") from None
        finally:
            if is_well and self._users > 0:
                self._idle.append(worker)
            else:
                await asyncio.shield(_end(worker))
        if error:
            raise ValueError(error)
        return str(text)


async def _begin(memory_mib: int) -> Process:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "actors.tools.document_worker",
        str(memory_mib),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=environment,
    )


async def _exchange(worker: Process, frame: bytes) -> bytes:
    requests, answers = worker.stdin, worker.stdout
    if requests is None or answers is None:
        raise EOFError("started without pipes")
    requests.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
    await requests.drain()
    length = int.from_bytes(await answers.readexactly(LENGTH_BYTES), "big")
    return await answers.readexactly(length)


async def _end(worker: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    await worker.communicate()


async def _digest(data: bytes) -> str:
    if len(data) <= _IN_PROCESS_BYTES:
        return hashlib.blake2b(data, digest_size=16).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.blake2b(data, digest_size=16).hexdigest())
