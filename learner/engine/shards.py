"""Whole tensors and the rows of them that each rank holds."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def local_rows(parameter: Tensor) -> tuple[Tensor, slice]:
    """This rank's shard of a parameter as a plain tensor, and which rows of the whole it holds."""
    if not isinstance(parameter, DTensor):
        return parameter, slice(0, len(parameter))
    local = parameter.to_local()
    _, offset = compute_local_shape_and_global_offset(
        parameter.shape, parameter.device_mesh, parameter.placements
    )
    return local, slice(offset[0], offset[0] + len(local))


@torch.no_grad()
def gather(
    named: Iterable[tuple[str, Tensor]], *, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Whole tensors from shards, on the CPU of rank 0; every rank must call it alike.

    No more than one whole tensor is on a device at a time.

    Args:
        named: sharded or plain tensors.
        dtype: as in ``full_state_dict``.

    Returns:
        On rank 0 contiguous copies; elsewhere an empty dictionary.
    """
    result = {}
    is_first = not dist.is_initialized() or dist.get_rank() == 0
    for name, tensor in named:
        converted = tensor.detach().to(tensor.dtype if dtype is None else dtype)
        whole = converted.full_tensor() if isinstance(converted, DTensor) else converted
        if is_first:
            result[name] = whole.to("cpu", copy=True).contiguous()
    return result
