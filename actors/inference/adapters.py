"""Adds staged adapters to the weights they belong to, one layer after another."""

from collections.abc import Iterator

import torch
from torch import Tensor

from actors.inference.mapped import StagedWeights
from common.errors import ProtocolError
from common.wire.weights import ADAPTER_A, ADAPTER_B

_WEIGHT = ".weight"


def whole_tensors(staged: StagedWeights, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the model that a staged version describes, in the order of its checkpoint.

    A weight W with factors A and B becomes W + B A, summed in float32 on ``device`` and rounded to
    the type of W; other tensors are views of the staged bytes. One sum exists at a time, so nothing
    of the model's size is allocated.

    Raises:
        ProtocolError: factors without a weight, or of which one is missing; raised before the
            first tensor is given.
    """
    own = _tensors(staged)
    every = own if staged.base is None else _tensors(staged.base)
    weights = {name: tensor for name, tensor in every.items() if not _is_factor(name)}
    factors = {name: tensor for name, tensor in own.items() if _is_factor(name)}
    adapted = {name.removesuffix(ADAPTER_A).removesuffix(ADAPTER_B) for name in factors}
    for stem in sorted(adapted):
        needed = (
            stem + ADAPTER_A in factors,
            stem + ADAPTER_B in factors,
            stem + _WEIGHT in weights,
        )
        if not all(needed):
            raise ProtocolError(
                f"weights of version {staged.manifest.version}: '{stem}' needs A, B and a weight"
            )
    return _merge(weights, factors, adapted, device)


def _merge(
    weights: dict[str, Tensor], factors: dict[str, Tensor], adapted: set[str], device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights.items():
        stem = name.removesuffix(_WEIGHT)
        if stem not in adapted:
            yield name, weight
            continue
        a, b = (factors[stem + part].to(device).float() for part in (ADAPTER_A, ADAPTER_B))
        yield name, torch.addmm(weight.to(device).float(), b, a).to(weight.dtype)


def _is_factor(name: str) -> bool:
    return name.endswith((ADAPTER_A, ADAPTER_B))


def _tensors(staged: StagedWeights) -> dict[str, Tensor]:
    return {
        spec.name: torch.frombuffer(frame, dtype=getattr(torch, spec.dtype)).view(spec.shape)
        for spec, frame in zip(staged.manifest.tensors, staged.frames, strict=True)
    }
