"""Attention over packs equals the definition, and no segment sees another."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from learner.engine.attention import (
    SegmentLayout,
    attention_backend,
    layout_of,
    packed_attention,
)
from learner.engine.model import load_model, score_targets
from learner.packs.packing import pack_segments, segment_of_examples
from tests.attention_reference import attend_by_mask, layout_of_pieces, random_heads
from tests.tiny_policy import make_model


@pytest.mark.parametrize("key_heads", [8, 2, 1])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attention_and_its_gradients_equal_the_definition(
    key_heads: int, scaling: float | None
) -> None:
    layout = layout_of(torch.tensor([5, 30, 1, 12]))
    parts = random_heads(48, 48, key_heads=key_heads)

    found, weights = packed_attention(nn.Identity(), *parts, None, layout=layout, scaling=scaling)
    expected = attend_by_mask(*parts, layout, scaling)

    assert weights is None
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    slopes = torch.linspace(-1, 1, found.numel()).view(found.shape)
    ours = torch.autograd.grad((found * slopes).sum(), parts)
    theirs = torch.autograd.grad((expected * slopes).sum(), parts)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_queries_may_be_the_last_of_more_keys() -> None:
    layout = layout_of_pieces([3, 7, 1, 4], [10, 7, 5, 4])
    parts = random_heads(15, 26, key_heads=2)

    found, _ = packed_attention(nn.Identity(), *parts, None, layout=layout)

    torch.testing.assert_close(found.double(), attend_by_mask(*parts, layout), rtol=1e-5, atol=1e-5)


def test_a_changed_segment_leaves_the_scores_of_others_bit_equal(tmp_path: Path) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path)
    texts = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15, 16]]
    changed = [texts[0], [20, 21, 22, 23], texts[2]]

    before, after = (
        score_targets(
            model,
            pack_segments(
                [
                    segment_of_examples(ids, [0.0] + [1.0] * (len(ids) - 1), name=str(number))
                    for number, ids in enumerate(each)
                ],
                budget=16,
            )[0],
            with_entropy=True,
        )
        for each in (texts, changed)
    )

    # Longest first: seven, five, four tokens.
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[:10], other[:10])
        assert not torch.equal(one[10:], other[10:])


def test_later_tokens_of_a_segment_leave_the_earlier_ones_bit_equal() -> None:
    layout = layout_of(torch.tensor([6, 10]))
    query, key, value = random_heads(16, 16)
    later = [part.detach().clone() for part in (query, key, value)]
    for part in later:
        part[:, :, 12:] += 1.0

    before, _ = packed_attention(nn.Identity(), query, key, value, None, layout=layout)
    after, _ = packed_attention(nn.Identity(), *later, None, layout=layout)

    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.equal(before[:, 12:], after[:, 12:])


def test_packs_of_other_lengths_do_not_compile_layers_again() -> None:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor, layout: SegmentLayout) -> torch.Tensor:
            return packed_attention(self, x * 2, x, x + 1, None, layout=layout)[0] + 1

    torch.compiler.reset()
    layer = torch.compile(Layer(), backend="eager", dynamic=True)
    x = torch.randn(1, 2, 12, 4)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lengths in ([12], [4, 8], [1, 2, 9]):
            layout = layout_of(torch.tensor(lengths))

            found = layer(x, layout)

            torch.testing.assert_close(found, Layer()(x, layout))


def test_the_backend_follows_device_and_type() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    assert attention_backend(cpu, torch.bfloat16) == "one_by_one"
    assert attention_backend(cuda, torch.float32) == "one_by_one"
    if find_spec("flash_attn") is None and find_spec("flash_attn_interface") is None:
        assert attention_backend(cuda, torch.bfloat16) == "torch_varlen"


def test_attention_without_a_layout_says_what_it_needs() -> None:
    part = torch.zeros(1, 1, 3, 4)

    with pytest.raises(ValueError, match="needs layout=SegmentLayout"):
        packed_attention(nn.Identity(), part, part, part, None)


def test_a_sliding_window_that_would_cut_a_segment_is_refused() -> None:
    part = torch.zeros(1, 1, 3, 4)
    layout = layout_of(torch.tensor([3]))

    with pytest.raises(ValueError, match=r"3 tokens.*last 2 \(sliding_window\)"):
        packed_attention(nn.Identity(), part, part, part, None, layout=layout, sliding_window=2)


def test_layout_holds_boundaries_and_the_longest_segment() -> None:
    layout = layout_of(torch.tensor([3, 1, 2]))

    assert isinstance(layout, SegmentLayout)
    assert layout.boundaries.tolist() == layout.key_boundaries.tolist() == [0, 3, 4, 6]
    assert layout.boundaries.dtype == torch.int32
    assert layout.longest == 3
