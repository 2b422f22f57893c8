"""Hands weight snapshots to the workers of the policy servers, ahead of the swap.

One thread owns the ROUTER socket. It keeps the newest snapshot and sends it to each worker when
it is offered, and again to a worker that says hello later (started late, or restarted).
"""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import zmq

from common.codec import Buffer
from common.errors import PolicyServerError, ProtocolError
from common.messages import TensorSpec, WeightManifest
from common.weight_wire import (
    ReportKind,
    StagingReport,
    checksum,
    pack_manifest,
    unpack_report,
)

log = logging.getLogger(__name__)

_WAKE = "inproc://wake"


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
    """Sends the newest snapshot to every worker and collects what they report."""

    def __init__(self, bind: str = "tcp://127.0.0.1:*") -> None:
        """Bind to ``bind``; a port ``*`` takes a free one."""
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a restarted worker keeps its name
        self._router.setsockopt(zmq.SNDHWM, 0)
        self._router.bind(bind)
        self.endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wake_receiver = self._context.socket(zmq.PULL)
        self._wake_receiver.bind(_WAKE)
        self._snapshot: Snapshot | None = None
        self._base: Snapshot | None = None
        self._workers: dict[bytes, StagingReport] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="weight-channel", daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Close the sockets and forget the snapshot."""
        self._stopping = True
        self._wake()
        self._thread.join(timeout=5)
        self._context.destroy(linger=0)

    def offer(self, snapshot: Snapshot) -> None:
        """Send ``snapshot`` to all workers, and to each that comes from now on.

        A worker that comes gets the whole model first, if ``snapshot`` is only its adapters.
        """
        with self._changed:
            self._snapshot = snapshot
            if not snapshot.manifest.base:
                self._base = snapshot
        self._wake()

    def forget(self, server: str) -> None:
        """Send nothing more to the workers of ``server`` until they say hello again."""
        with self._changed:
            self._workers = {
                identity: report
                for identity, report in self._workers.items()
                if report.server != server
            }

    def wait_staged(self, server: str, *, workers: int, version: int, timeout_s: float) -> None:
        """Wait until all ``workers`` of ``server`` hold ``version``.

        Raises:
            PolicyServerError: a worker refused it, or was silent for ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                reports = [r for r in self._workers.values() if r.server == server]
                refused = [r for r in reports if r.kind is ReportKind.REFUSED]
                if refused:
                    raise PolicyServerError(
                        f"policy server {server}: worker {refused[0].rank} refused weights of "
                        f"version {version}: {refused[0].reason}"
                    )
                staged = sum(r.version == version for r in reports)
                if staged >= workers:
                    return
                if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    raise PolicyServerError(
                        f"policy server {server}: {staged} of {workers} workers had received "
                        f"weights of version {version} after {timeout_s:.0f} s"
                    )

    def _wake(self) -> None:
        with self._context.socket(zmq.PUSH) as sender:
            sender.setsockopt(zmq.LINGER, 1000)
            sender.connect(_WAKE)
            sender.send(b"")

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_receiver, zmq.POLLIN)
        while not self._stopping:
            ready = dict(poller.poll())
            if self._router in ready:
                self._receive()
            if self._wake_receiver in ready:
                self._wake_receiver.recv()
                self._send_to_all()
        self._router.close(linger=0)
        self._wake_receiver.close(linger=0)

    def _receive(self) -> None:
        identity, *frames = self._router.recv_multipart()
        try:
            report = unpack_report(frames[0] if frames else b"")
        except ProtocolError as error:
            log.warning("ignored a message peer=%r reason=%s", identity, error)
            return
        log.debug("worker reported server=%s kind=%s", report.server, report.kind)
        with self._changed:
            self._workers[identity] = report
            self._changed.notify_all()
        if report.kind is ReportKind.HELLO:
            self._send_everything(identity)

    def _send_to_all(self) -> None:
        with self._changed:
            identities, snapshot = list(self._workers), self._snapshot
        for identity in identities:
            self._send(identity, snapshot)

    def _send_everything(self, identity: bytes) -> None:
        with self._changed:
            snapshot, base = self._snapshot, self._base
        if snapshot is not base:
            self._send(identity, base)
        self._send(identity, snapshot)

    def _send(self, identity: bytes, snapshot: Snapshot | None) -> None:
        if snapshot is None or self._stopping:
            return
        header = pack_manifest(snapshot.manifest)
        with contextlib.suppress(zmq.ZMQError):  # a worker that just left says hello again
            self._router.send_multipart([identity, header, *snapshot.frames], copy=False)
