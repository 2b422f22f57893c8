"""Turns documents into text in sandboxed child processes, so that the event loop never waits.

A process is kept from document to document, with its libraries; each document is parsed in a fork
of it that ends with its answer. So nothing that a document does is left when the next one is read,
be it of another episode, and no document pays for a sandbox, or for an import but the first of its
kind.
"""

import asyncio
import hashlib
import logging

from actors.kernels.limits.host_uids import HostUids
from actors.tools.documents.files import DocumentFiles, find_document_files
from actors.tools.documents.kinds import DocumentKind
from actors.tools.documents.process import DocumentProcess, ReaderDiedError
from actors.tools.documents.text import MAX_CHARACTERS
from actors.tools.documents.worker import DocumentLimits, DocumentOutcome
from actors.tools.excerpts import TextMemory
from common.errors import MachineError

WORKERS = 2
"""Child processes at most; a document waits for a free one."""

TIMEOUT_S = 30.0
"""Wall time for one document."""

MEMORY_MIB = 2048
"""Address space for one document."""

KEPT_CHARACTERS = 32 << 20
"""Texts of documents read last that are kept, in total."""

_LONGEST_TEXT = MAX_CHARACTERS + 1000
_QUICK_BYTES = 1 << 16
_logger = logging.getLogger(__name__)


class DocumentReader:
    """Shared by the tools that read documents; each starts and closes it."""

    def __init__(
        self,
        *,
        workers: int = WORKERS,
        timeout_s: float = TIMEOUT_S,
        memory_mib: int = MEMORY_MIB,
        unsafe_no_sandbox: bool = False,
        uids: HostUids | None = None,
    ) -> None:
        """Describe it.

        Args:
            workers: processes at most.
            timeout_s: for one document.
            memory_mib: for one document.
            unsafe_no_sandbox: where no sandbox can be started, do without.
            uids: where each process gets a user id of its own from, as root.
        """
        self._limits = DocumentLimits(memory_mib=memory_mib, timeout_s=timeout_s)
        self._may_be_bare = unsafe_no_sandbox
        self._uids = uids
        self._is_bare = False
        self._free = asyncio.Semaphore(workers)
        self._idle: list[DocumentProcess] = []
        self._known = TextMemory(KEPT_CHARACTERS)
        self._files: DocumentFiles | None = None
        self._users = 0

    async def start(self) -> None:
        """Count one more user; for the first, start a process, to see that it can be.

        Raises:
            MachineError: this machine cannot start one; says what to do.
        """
        if self._users == 0:
            self._idle.append(await self._begin())
        self._users += 1

    async def close(self) -> None:
        """End the children when the last user is gone."""
        self._users -= 1
        if self._users <= 0:
            while self._idle:
                await self._idle.pop().end()

    async def read(self, data: bytes, kind: DocumentKind, charset: str = "") -> str:
        """The text of a document.

        Raises:
            ValueError: it is damaged, needs too much memory, or cannot be text; or its process
                ended, twice, which is not called damage.
            TimeoutError: it took too long.
        """
        if kind in (DocumentKind.IMAGE, DocumentKind.OTHER):
            raise ValueError(f"it holds no text ({len(data)} bytes, kind {kind})")
        key = f"{kind} {charset} {await _digest(data)}"
        text = self._known.get(key)
        if text is None:
            async with self._free:
                text = await self._text(kind, charset, data)
            self._known.put(key, text)
        return text

    async def _text(self, kind: DocumentKind, charset: str, data: bytes) -> str:
        outcome, text = await self._asked(kind, charset, data)
        if outcome is DocumentOutcome.TEXT:
            return text[:_LONGEST_TEXT]
        if outcome is DocumentOutcome.TIMED_OUT:
            limit_s = self._limits.timeout_s
            raise TimeoutError(f"the document could not be read within {limit_s:g} s")
        raise ValueError(text[:1000])

    async def _asked(
        self, kind: DocumentKind, charset: str, data: bytes
    ) -> tuple[DocumentOutcome, str]:
        for last in (False, True):
            try:
                return await self._ask(kind, charset, data)
            except ReaderDiedError as death:
                _logger.warning("a process that reads documents died: %s", death)
                if last:
                    return (
                        DocumentOutcome.FAILED,
                        f"the process that reads documents died twice: {death}",
                    )
            except TimeoutError:
                return DocumentOutcome.TIMED_OUT, ""
        raise AssertionError("unreachable: the last try returns or raises")

    async def _ask(
        self, kind: DocumentKind, charset: str, data: bytes
    ) -> tuple[DocumentOutcome, str]:
        worker = await self._worker()
        is_well = False
        try:
            answer = await worker.ask(kind, charset, data)
            is_well = True
            return answer
        finally:
            if is_well and self._users > 0:
                self._idle.append(worker)
            else:
                await asyncio.shield(worker.end())

    async def _worker(self) -> DocumentProcess:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await worker.end()
        return await self._begin()

    async def _begin(self) -> DocumentProcess:
        if self._files is None:
            self._files = await asyncio.to_thread(find_document_files)
        try:
            return await self._started(self._files)
        except MachineError as fault:
            if not self._may_be_bare or self._is_bare:
                raise
            _logger.warning("NO SANDBOX: documents are parsed by plain processes: %s", fault)
            self._is_bare = True
            return await self._started(self._files)

    async def _started(self, files: DocumentFiles) -> DocumentProcess:
        worker = DocumentProcess(self._limits, self._uids)
        await worker.start(files, bare=self._is_bare)
        return worker


async def _digest(data: bytes) -> str:
    def digest() -> str:
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    return digest() if len(data) <= _QUICK_BYTES else await asyncio.to_thread(digest)
