"""What the weight publisher and the workers of a policy server say to each other over ZeroMQ.

The publisher opens a door; each worker brings a line with the key of its server and an identity
``server#rank#session``, of which nobody else knows the last part and could take its place.

* worker to publisher: one frame, a ``StagingReport``: ``hello`` once it listens (also after the
  publisher was replaced), then ``staged`` or ``refused`` for each snapshot it received. The next
  snapshot comes after that.
* publisher to worker: a snapshot, i.e. one header frame (a ``WeightManifest``), then the raw
  little-endian bytes of each tensor in the order of the manifest.

A snapshot may hold factors A and B of low-rank adapters, named as the weight W they belong to with
ADAPTER_A and ADAPTER_B for ``.weight``; the worker samples with W + B A. A later snapshot may then
hold new factors only; its manifest names the snapshot with W as its ``base``.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgpack

from common.errors import ProtocolError
from common.wire.codec import Buffer, decode, encode
from common.wire.records import TensorSpec, WeightManifest

ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes per element of the tensor types that can be published, by torch's name."""


ADAPTER_A = ".lora_A.weight"
ADAPTER_B = ".lora_B.weight"


MAX_REPORT_BYTES = 1 << 16
MAX_REASON_CHARACTERS = 2000


def worker_identity(server: str, rank: int, session: str = "") -> bytes:
    """What worker ``rank`` of ``server`` calls itself on the wire."""
    return f"{server}#{rank}#{session}".encode()


class ReportKind(StrEnum):
    """What a worker has to say."""

    HELLO = "hello"
    STAGED = "staged"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StagingReport:
    """A worker of a policy server to the publisher.

    ``version`` is the version staged or refused, or for a hello the one it holds (-1 for none).
    """

    server: str
    rank: int
    kind: ReportKind
    version: int
    reason: str = ""


def pack_report(report: StagingReport) -> bytes:
    """One frame; a long reason is cut."""
    reason = report.reason[:MAX_REASON_CHARACTERS].encode(errors="replace").decode()
    fields = dataclasses.asdict(report) | {"reason": reason}
    return bytes(msgpack.packb(fields, use_bin_type=True))


def unpack_report(frame: Buffer) -> StagingReport:
    """The report in a frame.

    Raises:
        ProtocolError: not a report.
    """
    try:
        fields = msgpack.unpackb(frame, raw=False, strict_map_key=True)
        return StagingReport(
            server=str(fields["server"]),
            rank=int(fields["rank"]),
            kind=ReportKind(fields["kind"]),
            version=int(fields["version"]),
            reason=str(fields["reason"]),
        )
    except Exception as error:  # msgpack raises many types on hostile bytes
        raise ProtocolError(f"staging report cannot be read: {error!r}") from error


def checksum(frames: Iterable[Buffer]) -> str:
    """Blake2b-16 hex digest of all frames in order (releases the GIL while it hashes)."""
    digest = hashlib.blake2b(digest_size=16)
    for frame in frames:
        digest.update(frame)
    return digest.hexdigest()


def pack_manifest(manifest: WeightManifest) -> bytes:
    """The header frame of a snapshot."""
    return bytes(encode(manifest)[0])


def unpack_snapshot(frames: Sequence[Buffer]) -> tuple[WeightManifest, Sequence[Buffer]]:
    """Manifest and tensor frames of a snapshot, sizes and checksum verified.

    Raises:
        ProtocolError: anything missing, of the wrong size or altered.
    """
    manifest = decode(frames[:1])
    if not isinstance(manifest, WeightManifest):
        raise ProtocolError(f"expected a weight manifest, got {type(manifest).__name__}")
    tensors = frames[1:]
    if len(tensors) != len(manifest.tensors):
        raise ProtocolError(
            f"weights of version {manifest.version}: the manifest lists "
            f"{len(manifest.tensors)} tensors, {len(tensors)} came"
        )
    for spec, frame in zip(manifest.tensors, tensors, strict=True):
        _check_size(spec, frame)
    found = checksum(tensors)
    if found != manifest.checksum:
        raise ProtocolError(
            f"weights of version {manifest.version}: checksum {found}, "
            f"the manifest says {manifest.checksum}"
        )
    return manifest, tensors


def _check_size(spec: TensorSpec, frame: Buffer) -> None:
    if spec.dtype not in ITEM_BYTES:
        raise ProtocolError(f"tensor '{spec.name}' has type {spec.dtype}, which is not supported")
    if any(size < 0 for size in spec.shape):
        raise ProtocolError(f"tensor '{spec.name}' has the shape {list(spec.shape)}")
    expected = math.prod(spec.shape) * ITEM_BYTES[spec.dtype]
    if memoryview(frame).nbytes != expected:
        raise ProtocolError(
            f"tensor '{spec.name}' {spec.dtype}{list(spec.shape)} must be {expected} bytes, "
            f"got {memoryview(frame).nbytes}"
        )
