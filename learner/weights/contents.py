"""What of a model is sent to the policy servers, or written as an adapter."""

import torch
from torch import Tensor, nn

from common.wire.weights import ADAPTER_B
from learner.engine.lora import adapted_layers, adapter_state, is_adapter
from learner.engine.sharding import full_state_dict, tied_names
from learner.engine.shards import gather


def weights_to_publish(
    model: nn.Module, *, complete: bool, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """Gather on rank 0 what the policy servers need; every rank must call it.

    With adapters, all but the first version are the adapters alone: a rank of 16 in every linear
    layer of a 7B model is 160 MB instead of 15 GB. The policy server adds them to the weights of
    the first.

    Args:
        model: sharded or not.
        complete: whether the servers need everything, as they do first.
        dtype: type of the weights, by default that of each tensor; factors of adapters are
            always float32.

    Returns:
        On rank 0 tensors by name, on CPU, B already multiplied by alpha / r (see
        ``common.wire.weights``); elsewhere an empty dictionary. Without adapters this is
        ``full_state_dict``.
    """
    factors = full_adapter_state(model)
    scales = {name + ADAPTER_B: layer.scale for name, layer in adapted_layers(model)}
    if not scales:
        return full_state_dict(model, dtype=dtype)
    for name in factors.keys() & scales.keys():
        factors[name] *= scales[name]
    return factors if not complete else _frozen_weights(model, dtype) | factors


def full_adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Gather the whole adapters on the CPU of rank 0; every rank must call it."""
    return gather(adapter_state(model).items())


def _frozen_weights(model: nn.Module, dtype: torch.dtype | None) -> dict[str, Tensor]:
    tied = tied_names(model)
    state = model.state_dict().items()
    return gather(((n, t) for n, t in state if n not in tied and not is_adapter(n)), dtype=dtype)
