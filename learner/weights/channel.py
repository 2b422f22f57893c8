"""Hands weight snapshots to the workers of the policy servers, ahead of the swap.

One thread owns the ROUTER socket. It keeps the newest snapshot and sends it to each worker when
it is offered, and again to a worker that says hello later (started late, or restarted). Who is sent
what is decided in ``learner.weights.workers``.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from common.errors import PolicyServerError, ProtocolError
from common.places import Address
from common.telemetry.quiet_log import QuietLog
from common.waits.catalogue import WaitKind
from common.waits.register import waiting
from common.wire.codec import Buffer
from common.wire.parcels import Parcel
from common.wire.records import TensorSpec, WeightManifest
from common.wire.sockets import Door, PeerLimits, UndeliverableError
from common.wire.weights import (
    MAX_REPORT_BYTES,
    checksum,
    pack_manifest,
    unpack_report,
)
from learner.weights.workers import Worker, Workers

log = logging.getLogger(__name__)

WORKER_LIMITS = PeerLimits(
    part_bytes=MAX_REPORT_BYTES, message_bytes=MAX_REPORT_BYTES, queued_out=2, must_arrive=True
)
"""Of one worker of a policy server, at the door where it fetches weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A weight version in CPU memory, independent of the model it was taken from."""

    manifest: WeightManifest
    frames: tuple[Buffer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(memoryview(frame).nbytes for frame in self.frames)


def take_snapshot(version: int, state: Mapping[str, torch.Tensor], *, base: str = "") -> Snapshot:
    """Copy ``state`` (full tensors by their Hugging Face names) to the CPU and sum it up.

    ``base`` is the checksum of the snapshot that adapters belong to, see WeightManifest.
    """
    specs: list[TensorSpec] = []
    frames: list[Buffer] = []
    for name, tensor in state.items():
        copy = tensor.detach().to("cpu", copy=True).contiguous()
        specs.append(
            TensorSpec(
                name=name, dtype=str(copy.dtype).removeprefix("torch."), shape=tuple(copy.shape)
            )
        )
        frames.append(copy.reshape(-1).view(torch.uint8).numpy().data)
    manifest = WeightManifest(
        version=version, tensors=tuple(specs), checksum=checksum(frames), base=base
    )
    return Snapshot(manifest=manifest, frames=tuple(frames))


class StagingChannel:
    """Sends the newest snapshot to every worker and collects what they report.

    Of the members who may come to the door only workers that are expected are served.
    """

    def __init__(self, door: Door) -> None:
        """Serve at ``door``; it is closed when the channel stops."""
        self._door = door
        self._snapshot: Snapshot | None = None
        self._base: Snapshot | None = None
        self._workers = Workers()
        self._quiet = QuietLog(log)
        self._fault = ""
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="weight-channel", daemon=True)

    @property
    def address(self) -> Address:
        """Where workers find it."""
        return self._door.address

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Close the door and forget the snapshot."""
        self._stopping = True
        self._door.wake()
        self._thread.join(timeout=5)

    def offer(self, snapshot: Snapshot) -> None:
        """Send ``snapshot`` to all workers, and to each that comes from now on.

        A worker that comes gets the whole model first, if ``snapshot`` is only its adapters.
        """
        with self._changed:
            self._snapshot = snapshot
            if not snapshot.manifest.base:
                self._base = snapshot
            self._changed.notify_all()
        self._door.wake()

    def expect(self, server: str, workers: int) -> None:
        """Serve ``workers`` workers of ``server``, each from its next hello on."""
        with self._changed:
            self._workers.expect(server, workers)

    def forget(self, server: str) -> None:
        """Send nothing more to the workers of ``server``, and believe nobody who says it is one."""
        with self._changed:
            self._workers.forget(server)

    def wait_staged(self, server: str, *, workers: int, version: int, timeout_s: float) -> None:
        """Wait until all ``workers`` of ``server`` hold ``version``.

        Raises:
            PolicyServerError: a worker refused it, or was silent for ``timeout_s``; another version
                was offered meanwhile; or the channel itself failed.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed, waiting(WaitKind.STAGED, server):
            while True:
                if cause := self._hopeless(version):
                    raise PolicyServerError(f"policy server {server}: {cause}")
                known = self._workers.of(server)
                refused = [worker for worker in known if worker.refusal]
                if refused:
                    raise PolicyServerError(
                        f"policy server {server}: worker {refused[0].rank} refused weights of "
                        f"version {version}: {refused[0].refusal}"
                    )
                staged = sum(worker.staged == version for worker in known)
                if staged >= workers:
                    return
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise PolicyServerError(
                        f"policy server {server}: {staged} of {workers} workers had received "
                        f"weights of version {version} after {timeout_s:.0f} s"
                    )

    def _hopeless(self, version: int) -> str:
        """Why no worker is going to hold ``version``."""
        if self._fault:
            return f"the channel that sends weights failed: {self._fault}"
        newest = self._snapshot
        if newest is not None and newest.manifest.version != version:
            return f"weights of version {version} were overtaken by {newest.manifest.version}"
        return ""

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            log.exception("the channel that sends weights failed")
            with self._changed:
                self._fault = repr(error)
                self._changed.notify_all()
        finally:
            self._door.close()

    def _serve(self) -> None:
        while not self._stopping:
            self._door.wait()
            while (parcel := self._door.receive()) is not None:
                self._hear(parcel)
            self._send_what_is_due()

    def _hear(self, parcel: Parcel) -> None:
        try:
            report = unpack_report(parcel.frames[0] if len(parcel.frames) == 1 else b"")
        except ProtocolError as error:
            self._ignore(parcel, str(error))
            return
        log.debug("worker reported server=%s kind=%s", report.server, report.kind)
        if report.server != parcel.member:
            self._ignore(parcel, f"it speaks for '{report.server[:40]}'")
            return
        with self._changed:
            doubt = self._workers.hear(parcel.identity, report)
            self._changed.notify_all()
        if doubt:
            self._ignore(parcel, doubt)

    def _ignore(self, parcel: Parcel, reason: str) -> None:
        self._quiet.warning(
            "ignored a report", "from=%s peer=%r reason=%s", parcel.member, parcel.identity, reason
        )

    def _send_what_is_due(self) -> None:
        with self._changed:
            newest, base = self._snapshot, self._base
            for worker in self._workers.all:
                snapshot = self._workers.due(worker, newest, base)
                if snapshot is not None:
                    self._send(worker, snapshot)

    def _send(self, worker: Worker, snapshot: Snapshot) -> None:
        try:
            self._door.send(worker.identity, [pack_manifest(snapshot.manifest), *snapshot.frames])
        except UndeliverableError as error:
            log.warning("lost a worker server=%s rank=%d reason=%s",
                        worker.server, worker.rank, error)  # fmt: skip
            self._workers.lost(worker, str(error))
        else:
            self._workers.sent(worker, snapshot.manifest)
