"""How much memory a rank of the learner needs, and what to change when there is less.

An estimate from config.json and the configuration, made before anything is loaded. What a
decoder layer keeps for the backward pass was measured on CPU with the models of transformers;
kernels on a GPU keep no more.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.config import Config, Lora
from common.errors import MachineError
from learner.engine.host_memory import host_memory
from learner.engine.model_shape import ModelShape, shape_of

if TYPE_CHECKING:
    import torch

GIB = 1 << 30
MOST_OVER = 1.3
"""So much more than there is may be estimated before a run is refused: the estimate is on the safe
side, and was up to 1.4 times what was measured."""
NEARLY = 0.85
"""From this share of what there is on, a run is warned that it is close."""
_CONTEXT_BYTES = GIB
"""What CUDA and NCCL take for themselves."""
_LOGITS = 2**26
"""Logits that exist at once, three times: see ``MOST_LOGITS`` and ``KEPT_LOGITS`` in
``learner.engine.softmax_chunks``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """Bytes that one rank needs, by what for.

    Attributes:
        device: on the device it computes on.
        host: besides, in CPU memory; on a machine without GPU the device is CPU memory as well.
    """

    device: dict[str, int]
    host: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class FreeMemory:
    """What one rank may use.

    Attributes:
        device: bytes on its GPU; None where it computes on the CPU.
        host: bytes of CPU memory, its share of what is free.
    """

    device: int | None
    host: int


def estimate_memory(
    description: Mapping[str, Any], config: Config, *, on_gpu: bool
) -> MemoryEstimate:
    """Estimate what one rank needs at most.

    Args:
        description: config.json of the model.
        config: of the run.
        on_gpu: whether ranks compute on GPUs.

    Raises:
        KeyError: the description lacks a size.
    """
    shape, learner, lora = shape_of(description), config.learner, config.model.lora
    compute = 2 if config.model.compute_dtype == "bfloat16" else 4
    shards = max(1, learner.ranks // learner.replicas)
    trained = shape.adapter_parameters(lora) if lora.rank else shape.parameters
    frozen = shape.parameters if lora.rank else 0
    kept = {
        "weights": (4 * trained + compute * frozen) // shards,
        "gradients": 4 * trained // shards,
        "optimizer": 8 * trained // shards,
    }
    if config.objective.kl_reference:
        kept["reference model"] = compute * shape.parameters // shards
    if config.objective.advantage == "gae":
        kept["critic"] = 16 * shape.parameters // shards
    used = {
        "layers in use": _layers_in_use(shape, compute, lora),
        "activations": _activations(shape, config, compute),
    }
    if on_gpu:
        used["CUDA"] = _CONTEXT_BYTES
    # Only rank 0 holds them, twice; it takes them from what its machine has for all ranks.
    host = {"weights to publish": 2 * compute * shape.parameters // learner.ranks}
    if learner.cpu_offload:
        return MemoryEstimate(device=used, host=kept | host)
    return MemoryEstimate(device=kept | used, host=host)


def _layers_in_use(shape: ModelShape, compute: int, lora: Lora) -> int:
    """Gathered weights of the root, of a layer and of the next; gradients before reduction."""
    gathered = compute * (shape.root_parameters + 2 * shape.layer_parameters)
    largest = max(shape.root_parameters, shape.layer_parameters)
    return gathered + (0 if lora.rank else (compute + 4) * largest)


def _activations(shape: ModelShape, config: Config, compute: int) -> int:
    """What the forward pass keeps, and what one layer does when it is computed again."""
    tokens = -(-config.learner.pack_tokens // config.learner.context_parallel)
    layer = tokens * bytes_kept_per_token(shape, compute)
    state = tokens * compute * shape.hidden
    attended = tokens * (compute * shape.queries + 4 * shape.heads)
    kept = {
        "none": shape.layers * layer,
        "selective": shape.layers * (state + attended) + layer,
        "full": shape.layers * state + layer,
    }
    logits = 3 * 4 * min(_LOGITS, tokens * shape.vocabulary)
    ends = tokens * (4 + 3 * compute) * shape.hidden
    return kept[config.learner.activation_checkpointing] + ends + logits


def bytes_kept_per_token(shape: ModelShape, compute: int) -> int:
    """What one decoder layer keeps for the backward pass without checkpointing.

    Of both norms the input in float32, the normalised input and the result; queries, the result
    of attention twice, keys and values; four steps of the gated layer.
    """
    norms = 2 * (4 + 2 * compute) * shape.hidden
    attention = compute * (3 * shape.queries + 2 * shape.keys)
    if shape.head_norms:
        attention += (4 + compute) * (shape.queries + shape.keys)
    return norms + attention + 4 * compute * shape.intermediate


def free_memory(device: "torch.device", *, ranks_here: int) -> FreeMemory:
    """What is free now for one of ``ranks_here`` ranks on this machine."""
    host = host_memory().available // ranks_here
    if device.type != "cuda":
        return FreeMemory(device=None, host=host)
    import torch  # everything else here is wanted by processes that do without it

    return FreeMemory(device=torch.cuda.mem_get_info(device)[0], host=host)


def check_memory(
    description: Mapping[str, Any], config: Config, free: FreeMemory, *, beside: str = ""
) -> str:
    """Refuse a run that would not fit.

    Args:
        description: config.json of the model.
        config: of the run.
        free: what a rank may use.
        beside: how the message goes on behind that so much is free.

    Returns:
        A warning where it is close; else empty.

    Raises:
        MachineError: what is needed, what is free, and which keys would help how much.
    """
    demand = _worst(description, config, free)
    if demand.share <= NEARLY:
        return ""
    listed = ", ".join(f"{name} {size / GIB:.2f}" for name, size in demand.parts.items() if size)
    left = demand.free - demand.needed
    text = (
        f"a learner rank needs about {demand.needed / GIB:.2f} GiB of {demand.where} memory "
        f"({listed}), but {demand.free / GIB:.2f} GiB are free{beside}: {abs(left) / GIB:.2f} GiB "
        f"{'too little' if left < 0 else 'to spare'}; what helps: "
        f"{_hints(description, config, free) or 'a smaller model.path or a larger machine'}"
    )
    if demand.share > MOST_OVER:
        raise MachineError(text)
    return f"{text}. It is tried all the same: the estimate is usually too high"


def _hints(description: Mapping[str, Any], config: Config, free: FreeMemory) -> str:
    """Which keys would help how much."""
    lacking, hints = _worst(description, config, free).lacking, []
    for key, changed in _remedies(config).items():
        left = _worst(description, changed, free).lacking
        if left < lacking:
            enough = ", which is enough" if left <= 0 < lacking else ""
            hints.append(f"{key} ({(lacking - left) / GIB:.2f} GiB less{enough})")
    return ", ".join(hints)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Demand:
    where: str
    parts: dict[str, int]
    free: int

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def lacking(self) -> int:
        return self.needed - self.free

    @property
    def share(self) -> float:
        return self.needed / max(self.free, 1)


def _worst(description: Mapping[str, Any], config: Config, free: FreeMemory) -> _Demand:
    """The kind of memory that is the shortest."""
    need = estimate_memory(description, config, on_gpu=free.device is not None)
    if free.device is None:
        return _Demand(where="CPU", parts=need.device | need.host, free=free.host)
    gpu = _Demand(where="GPU", parts=need.device, free=free.device)
    cpu = _Demand(where="CPU", parts=need.host, free=free.host)
    return max(gpu, cpu, key=lambda demand: demand.share)


def _remedies(config: Config) -> dict[str, Config]:
    """Configurations that need less, by what was changed."""
    learner, result = config.learner, {}

    def propose(text: str, **keys: Any) -> None:
        result[text] = dataclasses.replace(config, learner=dataclasses.replace(learner, **keys))

    if learner.activation_checkpointing != "full":
        propose('learner.activation_checkpointing = "full"', activation_checkpointing="full")
    if not learner.cpu_offload:
        propose("learner.cpu_offload = true", cpu_offload=True)
    if learner.replicas > 1:
        propose("learner.replicas = 1", replicas=1)
    propose(f"learner.ranks = {2 * learner.ranks} on twice the machines", ranks=2 * learner.ranks)
    if learner.pack_tokens > config.model.max_context:
        tokens = config.model.max_context
        propose(f"learner.pack_tokens = {tokens}", pack_tokens=tokens)
    if not config.model.lora.rank:
        model = dataclasses.replace(config.model, lora=Lora(rank=16))
        result["model.lora.rank = 16"] = dataclasses.replace(config, model=model)
    return result


def ranks_on_this_machine() -> int:
    """As torchrun says; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
