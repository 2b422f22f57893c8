"""Receives weights in the background, next to a running model, and holds them until called for.

A thread of the policy server's host owns the socket and writes what it receives, once for all
workers of vLLM, into a file in memory. It never touches the model: the workers take what is staged
in one step, so generation stops for the swap and not for the transfer.
"""

import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from actors.inference.mapped import WeightFile
from common.errors import ProtocolError
from common.places import Address
from common.wire.codec import Buffer
from common.wire.keys import KeyPair
from common.wire.records import WeightManifest
from common.wire.sockets import Line, Wire
from common.wire.weights import (
    ReportKind,
    StagingReport,
    pack_report,
    unpack_snapshot,
    worker_identity,
)

log = logging.getLogger(__name__)

_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class StagedFiles:
    """A verified snapshot, and the whole model that it belongs to where it is adapters only."""

    own: WeightFile
    base: WeightFile | None = None


class StagingReceiver:
    """Connects to a publisher and keeps the newest snapshot it sent, and the last whole model."""

    def __init__(self, publisher: Address, *, server: str, keys: KeyPair, rank: int = 0) -> None:
        """Prepare to connect to ``publisher`` as host ``rank`` of ``server``, with its keys."""
        self._publisher = publisher
        self._server = server
        self._keys = keys
        self._rank = rank
        self._fault = ""
        self._staged: StagedFiles | None = None
        self._base: WeightFile | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weight-staging", daemon=True)

    def start(self) -> None:
        """Connect and say hello."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect and drop what is staged."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5 * _POLL_MS / 1000)
        self._staged = self._base = None

    def take(self, version: int) -> StagedFiles:
        """The staged weights of ``version``; they stay staged until newer ones arrive.

        Raises:
            LookupError: another version or none is staged.
        """
        with self._lock:
            staged = self._staged
        if staged is None or staged.own.manifest.version != version:
            held = "nothing" if staged is None else f"version {staged.own.manifest.version}"
            fault = f"; the receiver failed: {self._fault}" if self._fault else ""
            raise LookupError(f"weights of version {version} are not staged, {held} is{fault}")
        return staged

    def _run(self) -> None:
        identity = worker_identity(self._server, self._rank, secrets.token_hex(16))
        try:
            with Wire(self._keys) as wire:
                line = wire.connect(self._publisher, identity=identity)
                self._report(line, ReportKind.HELLO, self._held_version())
                while not self._stopping.is_set():
                    if (frames := line.receive(timeout_ms=_POLL_MS)) is not None:
                        self._handle(line, frames)
        except Exception as error:
            self._fault = repr(error)
            log.exception("the receiver of weights failed")

    def _handle(self, line: Line, frames: Sequence[Buffer]) -> None:
        try:
            staged = self._stage(*unpack_snapshot(frames))
        except Exception as error:
            # Whatever it is, the publisher is told now, and need not wait for its deadline.
            reason = str(error) if isinstance(error, ProtocolError) else repr(error)
            log.warning("refused weights reason=%s", reason)
            self._report(line, ReportKind.REFUSED, -1, reason=reason)
            return
        self._report(line, ReportKind.STAGED, staged.own.manifest.version)

    def _stage(self, manifest: WeightManifest, tensors: Sequence[Buffer]) -> StagedFiles:
        base = self._base if manifest.base else None
        if manifest.base and (base is None or base.manifest.checksum != manifest.base):
            held = base.manifest.checksum if base else "none"
            raise ProtocolError(
                f"adapters of version {manifest.version} belong to weights with checksum "
                f"{manifest.base}, held are {held}"
            )
        own = WeightFile(manifest, tensors)
        with self._lock:
            self._base = own if base is None else base
            self._staged = StagedFiles(own, base)
        return self._staged

    def _held_version(self) -> int:
        return -1 if self._staged is None else self._staged.own.manifest.version

    def _report(self, line: Line, kind: ReportKind, version: int, reason: str = "") -> None:
        report = StagingReport(
            server=self._server, rank=self._rank, kind=kind, version=version, reason=reason
        )
        line.send([pack_report(report)])
