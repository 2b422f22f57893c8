"""Low-rank adapters: small trainable matrices beside frozen weights.

An adapted layer computes ``W x + (alpha / r) B A x`` with W frozen, A of [r, in] and B of
[out, r]. A begins random and B zero, so training begins at the model as it is. Parameters are
named as in the PEFT layout, without its prefix: ``model.layers.0.mlp.up_proj.lora_A.weight``.

Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from common.config import Lora
from common.wire.weights import ADAPTER_A, ADAPTER_B
from learner.engine.model_shape import check_adapters
from learner.engine.shards import local_rows


class LoraLinear(nn.Linear):
    """A frozen linear layer with an adapter; ``weight`` keeps its name and its meaning."""

    def __init__(self, layer: nn.Linear, *, rank: int, scale: float) -> None:
        """Take over the parameters of ``layer`` and freeze them.

        Args:
            layer: of [out, in], on any device or none.
            rank: r.
            scale: alpha / r.
        """
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.weight = layer.weight
        self.bias = layer.bias
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
        device = layer.weight.device
        self.lora_A = nn.Linear(
            layer.in_features, rank, bias=False, device=device, dtype=torch.float32
        )
        self.lora_B = nn.Linear(
            rank, layer.out_features, bias=False, device=device, dtype=torch.float32
        )
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Linear
        """[..., in] to [..., out]."""
        adapted: Tensor = self.lora_B(self.lora_A(input)) * self.scale
        return super().forward(input) + adapted

    @torch.no_grad()
    def merged(self) -> Tensor:
        """W + (alpha / r) B A in the type of W, sharded as W is; every rank must call it."""
        weight, a, b = (part.detach() for part in (self.weight, *self._factors()))
        if not isinstance(weight, DTensor):
            return (weight.float() + self.scale * (b.float() @ a.float())).to(weight.dtype)
        a_whole = a.full_tensor() if isinstance(a, DTensor) else a
        b_rows = b.to_local() if isinstance(b, DTensor) else b
        rows = weight.to_local().float() + self.scale * (b_rows.float() @ a_whole.float())
        return DTensor.from_local(
            rows.to(weight.dtype),
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )

    def _factors(self) -> tuple[Tensor, Tensor]:
        return self.lora_A.weight, self.lora_B.weight


def add_adapters(model: nn.Module, lora: Lora) -> nn.Module:
    """Freeze the model and give every layer that ``lora.targets`` names an adapter, in place.

    Call it before ``shard`` and ``reset_adapters`` after it. With ``lora.rank`` 0 nothing changes.

    Raises:
        ConfigError: a target names no linear layer of the decoder layers, or the rank is larger
            than one.
    """
    if lora.rank == 0:
        return model
    model.requires_grad_(False)
    layers = list(_linear_layers(model))
    sizes = {
        name.rpartition(".")[2]: (each.in_features, each.out_features) for name, each in layers
    }
    targets = check_adapters(lora, sizes)
    for name, layer in layers:
        parent, _, last = name.rpartition(".")
        if last in targets:
            adapted = LoraLinear(layer, rank=lora.rank, scale=lora.alpha / lora.rank)
            setattr(model.get_submodule(parent), last, adapted)
    return model


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        inside = name.startswith("model.layers.") and not name.endswith((".lora_A", ".lora_B"))
        if inside and isinstance(module, nn.Linear):
            yield name, module


@torch.no_grad()
def reset_adapters(model: nn.Module, *, seed: int) -> None:
    """Give all adapters their first values, the same for any number of ranks.

    A is uniform in +-1 / sqrt(in), as an ``nn.Linear`` begins; B is 0.

    Args:
        model: sharded or not.
        seed: of the values.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, module in adapted_layers(model):
        bound = 1 / math.sqrt(module.in_features)
        whole = torch.empty(module.lora_A.weight.shape).uniform_(-bound, bound, generator=generator)
        own, rows = local_rows(module.lora_A.weight)
        own.copy_(whole[rows])
        local_rows(module.lora_B.weight)[0].zero_()


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    """All layers with an adapter, by name."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear):
            yield name, module


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return name.endswith((ADAPTER_A, ADAPTER_B))


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The adapters' parameters by name, sharded as they are; empty without adapters."""
    return {name: tensor for name, tensor in model.named_parameters() if is_adapter(name)}
