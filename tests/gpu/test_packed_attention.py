"""Every variable-length kernel on CUDA agrees with the definition, and no segment sees another."""

import importlib.util

import pytest
import torch

from learner.engine import attention
from learner.engine.attention import Backend, SegmentLayout, layout_of, packed_attention
from tests.attention_reference import attend_by_mask, layout_of_pieces, random_heads

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
KERNELS = {"flash_attn_3": "flash_attn_interface", "flash_attn_2": "flash_attn"}


def run(
    backend: Backend, layout: SegmentLayout, *parts: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output and gradients of one kernel in bfloat16."""
    needs = KERNELS.get(backend)
    if needs is not None and importlib.util.find_spec(needs) is None:
        pytest.skip(f"{needs} is not installed")
    if backend == "flash_attn_3" and torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("flash-attn 3 needs a Hopper device")
    half = [part.detach().bfloat16().requires_grad_() for part in parts]
    flat = [part.squeeze(0).transpose(0, 1) for part in half]
    found = attention._varlen(*flat, layout, None, backend)[None]
    return found, list(torch.autograd.grad(found.float().square().sum(), half))


@pytest.mark.parametrize("backend", ["flash_attn_3", "flash_attn_2", "torch_varlen"])
@pytest.mark.parametrize("key_heads", [8, 2])
@pytest.mark.parametrize(
    ("queries", "keys"),
    [([5, 300, 1, 77], [5, 300, 1, 77]), ([5, 40, 1, 77], [130, 300, 9, 77])],
    ids=["whole segments", "last of more keys"],
)
def test_half_precision_kernels_equal_the_definition(
    backend: Backend, key_heads: int, queries: list[int], keys: list[int]
) -> None:
    layout = layout_of_pieces(queries, keys, "cuda")
    parts = random_heads(sum(queries), sum(keys), key_heads=key_heads, device="cuda")
    rounded = [part.detach().bfloat16().double().requires_grad_() for part in parts]

    found, gradients = run(backend, layout, *parts)
    expected = attend_by_mask(*rounded, layout)

    torch.testing.assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)
    truth = torch.autograd.grad(expected.square().sum(), rounded)
    for one, other in zip(gradients, truth, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=5e-2, atol=5e-2)


def test_single_precision_equals_the_definition() -> None:
    layout = layout_of(torch.tensor([5, 300, 1, 77], device="cuda"))
    parts = random_heads(383, 383, key_heads=2, device="cuda")

    found, _ = packed_attention(torch.nn.Identity(), *parts, None, layout=layout)

    torch.testing.assert_close(found.double(), attend_by_mask(*parts, layout), rtol=1e-4, atol=1e-4)


def test_a_changed_segment_leaves_others_bit_equal() -> None:
    layout = layout_of(torch.tensor([100, 200, 50], device="cuda"))
    parts = [part.detach().bfloat16() for part in random_heads(350, 350, device="cuda")]
    others = [part.clone() for part in parts]
    for part in others:
        part[:, :, 100:300] += 1.0

    before, _ = packed_attention(torch.nn.Identity(), *parts, None, layout=layout)
    after, _ = packed_attention(torch.nn.Identity(), *others, None, layout=layout)

    for own in (slice(0, 100), slice(300, 350)):
        assert torch.equal(before[:, own], after[:, own])
    assert not torch.equal(before[:, 100:300], after[:, 100:300])
