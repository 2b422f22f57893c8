"""Weights in a file in memory, which all processes of a machine map and none can change.

The host of a policy server writes what it received once; each worker of vLLM maps it and copies
what it needs into its model. Layout: length of the manifest (8 bytes, little-endian), the manifest
as on the wire, then the bytes of each tensor, each at the next multiple of ``ALIGNMENT``.
"""

import fcntl
import math
import mmap
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import ProtocolError
from common.wire.codec import Buffer, decode
from common.wire.records import WeightManifest
from common.wire.weights import ITEM_BYTES, pack_manifest

ALIGNMENT = 64
_LENGTH_BYTES = 8
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, kw_only=True, slots=True)
class StagedWeights:
    """A verified snapshot: ``frames[i]`` holds the bytes of ``manifest.tensors[i]``.

    ``base`` is the whole model, where these are its adapters only.
    """

    manifest: WeightManifest
    frames: tuple[Buffer, ...]
    base: "StagedWeights | None" = None


class WeightFile:
    """One snapshot; its memory is given back when nobody has this object or has mapped the file."""

    def __init__(self, manifest: WeightManifest, tensors: Sequence[Buffer]) -> None:
        """Write it.

        Raises:
            OSError: there is not enough memory.
        """
        self.manifest = manifest
        self._descriptor = os.memfd_create(
            f"lzero-weights-{manifest.version}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
        )
        weakref.finalize(self, os.close, self._descriptor)
        with os.fdopen(self._descriptor, "wb", closefd=False) as file:
            header = pack_manifest(manifest)
            file.write(len(header).to_bytes(_LENGTH_BYTES, "little") + header)
            for tensor in tensors:
                file.write(bytes(-file.tell() % ALIGNMENT))
                file.write(tensor)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, _SEALS)

    @property
    def path(self) -> str:
        """Where processes of this user find it, while this object lives."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"


def map_weights(path: Path, *, base: Path | None = None) -> StagedWeights:
    """The snapshot in a file, without copying it; ``base`` is that of the model it belongs to.

    Raises:
        OSError: there is none.
        ProtocolError: it is no such file.
    """
    with path.open("rb") as file:
        # A copy on write: torch takes no memory that it may not write to. Nobody writes.
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    start = _LENGTH_BYTES + int.from_bytes(mapped[:_LENGTH_BYTES], "little")
    manifest = decode([mapped[_LENGTH_BYTES:start]])
    if not isinstance(manifest, WeightManifest):
        raise ProtocolError(f"{path} must hold a weight manifest, got {type(manifest).__name__}")
    frames = []
    for spec in manifest.tensors:
        start += -start % ALIGNMENT
        size = math.prod(spec.shape) * ITEM_BYTES[spec.dtype]
        frames.append(mapped[start : start + size])
        start += size
    if start > len(mapped):
        raise ProtocolError(f"{path} ends before its last tensor")
    whole = None if base is None else map_weights(base)
    return StagedWeights(manifest=manifest, frames=tuple(frames), base=whole)
