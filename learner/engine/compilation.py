"""torch.compile, layer by layer."""

import logging

import torch
from torch import nn

log = logging.getLogger(__name__)


def compile_layers(model: nn.Module, device: torch.device) -> bool:
    """Compile every decoder layer in place, if the machine can.

    Attention stays as it is, since the lengths of segments differ from pack to pack; what is
    around it is compiled once, for any number of tokens. The first pass takes much longer.

    Args:
        model: sharded or not, with or without activation checkpointing.
        device: where it computes.

    Returns:
        Whether layers were compiled; if not, a warning says why, and results are the same.
    """
    reason = _why_not(device)
    if reason:
        log.warning("layers are not compiled (learner.compile): %s", reason)
        return False
    for layer in model.get_submodule("model.layers").children():
        layer.compile(dynamic=True)
    return True


def _why_not(device: torch.device) -> str:
    """Compile something small; what went wrong, or nothing."""
    torch.compiler.reset()
    try:
        torch.compile(_trial)(torch.ones(2, device=device))
    except Exception as error:  # compilers raise many types
        first = str(error).strip().partition("\n")[0]
        needed = "triton" if device.type == "cuda" else "a C++ compiler such as g++"
        return f"torch.compile needs {needed} and failed with {type(error).__name__}: {first}"
    return ""


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
