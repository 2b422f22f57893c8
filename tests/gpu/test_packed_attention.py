"""The variable-length kernels on CUDA agree with attention segment by segment."""

import pytest
import torch

from learner.attention import layout_of, packed_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("key_heads", [8, 2])
def test_half_precision_kernels_equal_single_precision(key_heads: int) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 300, 1, 77], device="cuda")
    query = torch.randn(1, 8, 383, 64, device="cuda")
    key, value = (torch.randn(1, key_heads, 383, 64, device="cuda") for _ in range(2))
    layout, module = layout_of(lengths), torch.nn.Identity()
    half = [part.bfloat16().requires_grad_() for part in (query, key, value)]
    single = [part.detach().float().requires_grad_() for part in half]

    found, _ = packed_attention(module, *half, None, layout=layout)
    expected, _ = packed_attention(module, *single, None, layout=layout)
    found.float().square().sum().backward()
    expected.square().sum().backward()

    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
    for one, other in zip(half, single, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, rtol=5e-2, atol=5e-2)
