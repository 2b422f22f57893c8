"""What a checkpoint keeps of a model and its optimizers, as a flat set of named tensors.

Names are ``model.<name>``, ``optimizer.<name of the parameter>.<kind of state>`` and
``random.cpu``. Hyperparameters are not kept: a resumed run takes them from its configuration.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import Optimizer

from common.errors import InputError
from learner.checkpoints.export import WEIGHTS
from learner.checkpoints.shard_files import TensorFolder
from learner.checkpoints.shard_header import Piece, in_file_order
from learner.engine.lora import adapted_layers
from learner.engine.sharding import tied_names

_FORMATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
}
_UNSIGNED = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: optimizer steps taken.
        weight_version: version of the weights in the checkpoint.
        ledger: what the coordinator needs to go on; opaque here.
    """

    step: int
    weight_version: int
    ledger: bytes


class Trainer(Protocol):
    """The optimizers of a model, with what a checkpoint keeps besides their tensors."""

    @property
    def parts(self) -> Sequence[Optimizer]:
        """The optimizers of torch, always in the same order."""
        ...

    def counters(self) -> dict[str, Any]:
        """Plain values to keep."""
        ...

    def restore_counters(self, counters: dict[str, Any]) -> None:
        """Go on from what ``counters`` returned."""
        ...


@dataclass(frozen=True, slots=True)
class Trainee:
    """A model that is trained beside the policy, such as a critic, and its optimizers."""

    model: nn.Module
    trainer: Trainer


@dataclass(frozen=True, slots=True)
class LiveState:
    """The tensors of a model and its optimizers, as they are, not copies."""

    weights: dict[str, Any]
    moments: dict[str, Any]
    tensors: dict[str, Tensor]


def live_state(model: nn.Module, optimizers: Sequence[Optimizer], *, prefix: str = "") -> LiveState:
    """Collect the state; every rank must call it. Optimizer state is made if there is none.

    Args:
        model: sharded or not.
        optimizers: all of this model.
        prefix: put before all names, for a second model.
    """
    weights, moments = get_state_dict(model, tuple(optimizers))
    tied = tied_names(model)
    tensors = {
        prefix + WEIGHTS + name: tensor
        for name, tensor in weights.items()
        if isinstance(tensor, Tensor) and name not in tied
    }
    moment_tensors: dict[str, dict[str, Tensor]] = moments["state"]  # type: ignore[assignment]
    for name, values in moment_tensors.items():
        for kind, value in values.items():
            tensors[f"{prefix}optimizer.{name}.{kind}"] = value
    return LiveState(dict(weights), dict(moments), tensors)


def size_of_state(model: nn.Module) -> int:
    """About how many bytes this rank will have to save: weights, two moments of each, a ledger."""
    total = 16 << 20
    for parameter in model.parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        total += local.numel() * local.element_size() * (3 if parameter.requires_grad else 1)
    return total


def random_state() -> dict[str, Tensor]:
    """State of torch's generators; alike on every rank."""
    state = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random.cuda"] = torch.cuda.get_rng_state()
    return state


def own_pieces(tensors: Mapping[str, Tensor], *, is_first: bool) -> list[tuple[Piece, Tensor]]:
    """The blocks that this rank has to save, in the order of the file.

    Of what several ranks hold alike, one has it: rank 0, or the first of the replicas.
    """
    pieces: dict[str, tuple[Piece, Tensor]] = {}
    for name, tensor in tensors.items():
        if _is_ours(tensor, is_first=is_first):
            piece, local = _region(name, tensor)
            if local.numel():
                pieces[name] = (piece, local)
    return [pieces[piece.name] for piece in in_file_order([p for p, _ in pieces.values()])]


def restore(state: LiveState, folder: TensorFolder) -> None:
    """Copy this rank's blocks out of the files into the live tensors.

    Raises:
        InputError: a tensor is missing, incomplete, or of another shape.
    """
    missing = sorted(state.tensors.keys() - set(folder.names()))
    if missing:
        raise InputError(
            f"'{folder.folder}' holds no '{missing[0]}' and lacks {len(missing)} tensors in all; "
            "it was written with another optimizer or other adapters"
        )
    for name, tensor in state.tensors.items():
        read_into(name, tensor, folder)


def apply(state: LiveState, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
    """Hand restored tensors to model and optimizers where they are not theirs already."""
    set_state_dict(
        model,
        tuple(optimizers),
        model_state_dict=state.weights,
        optim_state_dict=state.moments,
    )


def read_into(name: str, tensor: Tensor, folder: TensorFolder) -> None:
    """Fill a tensor, or this rank's block of it, from the files; see ``restore``."""
    whole = folder.whole(name)
    if whole.shape != tuple(tensor.shape) or whole.format != _FORMATS[tensor.dtype]:
        raise InputError(
            f"tensor '{name}' in '{folder.folder}' is {whole.format} {list(whole.shape)}, but "
            f"{_FORMATS[tensor.dtype]} {list(tensor.shape)} is needed"
        )
    piece, local = _region(name, tensor)
    if local.numel():
        bits = torch.from_numpy(folder.read(name, piece.offset, piece.shape))
        with torch.no_grad():
            local.copy_(bits.view(tensor.dtype))


def _is_ours(tensor: Tensor, *, is_first: bool) -> bool:
    if not isinstance(tensor, DTensor):
        return is_first
    place = tensor.device_mesh.get_coordinate()
    return place is not None and not any(
        place[dimension]
        for dimension, placement in enumerate(tensor.placements)
        if isinstance(placement, Replicate)
    )


def _region(name: str, tensor: Tensor) -> tuple[Piece, Tensor]:
    """This rank's block of a tensor and where it lies."""
    offset: tuple[int, ...] = (0,) * tensor.ndim
    local = tensor.detach()
    if isinstance(tensor, DTensor):
        local = tensor.to_local().detach()
        chunks = tensor.__create_chunk_list__()  # type: ignore[no-untyped-call]
        if math.prod(local.shape):
            (chunk,) = chunks
            offset = tuple(chunk.offsets)
    piece = Piece(
        name=name,
        format=_FORMATS[tensor.dtype],
        shape=tuple(local.shape),
        offset=offset,
        whole=tuple(tensor.shape),
    )
    return piece, local


_SHAPE_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
    "rms_norm_eps",
)


def describe_model(model: nn.Module) -> dict[str, Any]:
    """What has to agree between a checkpoint and the model that loads it."""
    config = model.config.to_dict()  # type: ignore[union-attr,operator]
    described = {key: config[key] for key in _SHAPE_KEYS if key in config}
    described["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if scales := adapter_scales(model):
        described["adapter_scales"] = sorted(set(scales.values()))
    return described


def adapter_scales(model: nn.Module) -> dict[str, float]:
    """Scales of the low-rank adapters, by the name of the weight that each belongs to."""
    return {f"{name}.weight": layer.scale for name, layer in adapted_layers(model)}
