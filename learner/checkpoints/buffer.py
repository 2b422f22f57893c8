"""Shared memory into which a rank copies its part of the state, used again by every save."""

import mmap
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from learner.checkpoints.shard_header import Piece

_SLACK_BYTES = 16 << 20
"""Room to spare, so that a ledger that grows from save to save does not move everything."""


class SnapshotBuffer:
    """Anonymous memory with a file descriptor, which a child process can read.

    It is not of /dev/shm, whose size containers limit. On CUDA it is pinned, so that the copy
    runs at the speed of the bus.
    """

    def __init__(self, *, pinned: bool) -> None:
        """Holds nothing yet."""
        self.descriptor = os.memfd_create("lzero-checkpoint")
        self._pinned = pinned
        self._memory = torch.empty(0, dtype=torch.uint8)

    def reserve(self, num_bytes: int) -> None:
        """Make room, and touch it, so that the first copy is as fast as later ones."""
        if num_bytes <= len(self._memory):
            return
        self._unpin()
        os.ftruncate(self.descriptor, num_bytes)
        self._memory = torch.frombuffer(mmap.mmap(self.descriptor, num_bytes), dtype=torch.uint8)
        self._memory[:: mmap.PAGESIZE].zero_()
        if self._pinned:
            _check(_runtime().cudaHostRegister(self._memory.data_ptr(), num_bytes, 0))

    def fill(self, pieces: Sequence[tuple[Piece, Tensor]], tail: bytes) -> int:
        """Copy tensors one after another, then ``tail``; returns the size of the tensors.

        The order must put wide numbers first (``learner.checkpoints.shard_header.in_file_order``).
        """
        size = sum(piece.num_bytes for piece, _ in pieces)
        if size + len(tail) > len(self._memory):
            self.reserve(size + 2 * len(tail) + _SLACK_BYTES)
        begin = 0
        for piece, tensor in pieces:
            part = self._memory[begin : begin + piece.num_bytes].view(tensor.dtype)
            part.view(tensor.shape).copy_(tensor.detach(), non_blocking=self._pinned)
            begin += piece.num_bytes
        if tail:
            self._memory[size : size + len(tail)] = torch.frombuffer(
                bytearray(tail), dtype=torch.uint8
            )
        if self._pinned:
            torch.cuda.synchronize()
        return size

    def close(self) -> None:
        """Give the memory back."""
        self._unpin()
        self._memory = torch.empty(0, dtype=torch.uint8)
        os.close(self.descriptor)

    def _unpin(self) -> None:
        if self._pinned and len(self._memory):
            _check(_runtime().cudaHostUnregister(self._memory.data_ptr()))


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _check(status: object) -> None:
    torch.cuda.check_error(int(status))  # type: ignore[call-overload]
