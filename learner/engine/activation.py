"""Activation checkpointing: which results of the forward pass the backward pass computes again.

``full`` keeps the input of each decoder layer. ``selective`` keeps what attention computed as
well: its cost grows with the square of a segment's length, that of the rest only linearly, and
its result is no larger than the layer's input.
"""

from functools import partial
from typing import Any, Literal

from torch._ops import OpOverload
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

Mode = Literal["none", "selective", "full"]

_ATTENTION = (
    "aten::_scaled_dot_product_",
    "aten::_flash_attention_forward",
    "aten::_efficient_attention_forward",
    "aten::_cudnn_attention_forward",
    "torch_attn::",
    "flash_attn::",
    "flash_attn_3::",
)
"""How names of the operators begin that compute attention, in torch and in flash-attn."""


def checkpoint_activations(model: PreTrainedModel, mode: Mode) -> None:
    """Let the decoder layers checkpoint in training mode, in place.

    Losses and gradients stay the same.

    Args:
        model: sharded or not.
        mode: ``none`` changes nothing; see above for the others.
    """
    if mode == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    # Embeddings need gradients only where checkpoints are reentrant.
    model.disable_input_require_grads()


def _policy(_: Any, operator: OpOverload, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """What to do with the result of an operator."""
    name: str = operator.name()  # type: ignore[no-untyped-call]
    if name.startswith(_ATTENTION):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
