"""Lets all ranks know what each of them has to say, as text."""

import torch
import torch.distributed as dist

from common.waits.catalogue import WaitKind
from common.waits.register import waiting


def gather_texts(text: str) -> list[str]:
    """The texts of all ranks, by rank; every rank must call it. Nothing is pickled."""
    data = torch.tensor(list(text.encode()), dtype=torch.uint8)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(lengths, torch.tensor([len(data)]))
    sizes = [int(length) for length in lengths]
    padded = torch.zeros(max(1, *sizes), dtype=torch.uint8)
    padded[: len(data)] = data
    everyone = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(everyone, padded)
    return [
        bytes(part[:size].tolist()).decode() for part, size in zip(everyone, sizes, strict=True)
    ]


def broadcast_number(number: int) -> int:
    """The number of rank 0, on every rank; every rank must call it."""
    shared = torch.tensor([number])
    with waiting(WaitKind.AGREEMENT):
        dist.broadcast(shared, src=0)
    return int(shared)


def largest_numbers(*numbers: int) -> list[int]:
    """The largest of what the ranks give, place by place; every rank must call it alike."""
    shared = torch.tensor(numbers)
    with waiting(WaitKind.AGREEMENT):
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return shared.tolist()
