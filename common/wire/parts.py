"""Long frames in parts, so that a door can refuse large ones of whoever has not proved who it is.

ZeroMQ bounds the parts of a message, also those of the handshake, and takes as much from anybody
who connects. A message with a frame beyond that bound is sent as ``b""``, the sizes of its frames
(little-endian uint32) and then its parts; any other message as it is, which no message of ours
begins with an empty frame.
"""

from collections.abc import Sequence

import numpy as np

from common.errors import ProtocolError
from common.wire.codec import Buffer

PART_BYTES = 1 << 18
"""Of the longest part. A thousand strangers that never finish one hold 256 MiB for some seconds."""

_SIZE = np.dtype("<u4")


def cut(frames: Sequence[Buffer]) -> list[Buffer]:
    """The parts to send for ``frames``."""
    sizes = [memoryview(frame).nbytes for frame in frames]
    if max(sizes, default=0) <= PART_BYTES:
        return list(frames)
    parts = [
        memoryview(frame)[start : start + PART_BYTES]
        for frame, size in zip(frames, sizes, strict=True)
        for start in range(0, size, PART_BYTES)
    ]
    return [b"", np.array(sizes, _SIZE).tobytes(), *parts]


def join(parts: Sequence[memoryview], *, limit: int) -> Sequence[memoryview]:
    """The frames that came as ``parts``.

    Raises:
        ProtocolError: they hold more or fewer bytes than was said, or more than ``limit``.
    """
    if not parts or parts[0].nbytes:
        return parts
    if len(parts) < 2 or parts[1].nbytes % _SIZE.itemsize:
        raise ProtocolError("a message in parts does not say the sizes of its frames")
    sizes = np.frombuffer(parts[1], _SIZE).tolist()
    held = sum(part.nbytes for part in parts[2:])
    if sum(sizes) != held or held > limit:
        raise ProtocolError(
            f"a message in parts must have as many bytes as it says and at most {limit}, "
            f"got {held} of {sum(sizes)}"
        )
    whole = memoryview(b"".join(parts[2:]))
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return [whole[end - size : end] for end, size in zip(ends, sizes, strict=True)]
