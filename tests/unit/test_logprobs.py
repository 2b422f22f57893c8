"""Log-probabilities and entropies from hidden states equal the naive ones, in little memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3Config

from learner.engine.attention import PACKED_ATTENTION, register_packed_attention
from learner.engine.logprobs import OutputLayer, linear_logprobs
from learner.engine.mesh import training_processes
from learner.engine.model import POLICIES, load_model, score_targets
from learner.engine.sharding import shard
from learner.engine.softmax_chunks import MOST_LOGITS
from learner.packs.packing import Pack, pack_segments, segment_of_examples
from tests.tiny_policy import make_model


def random_inputs(
    rows: int, width: int, words: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(words, width, generator=generator, dtype=torch.float64)
    wanted = torch.randint(0, words, (rows,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), wanted


def scores_by_loop(
    hidden: Tensor, weight: Tensor, wanted: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Row by row in float64: log p_y, and H = -sum p log p."""
    logprobs, entropies = [], []
    for row, word in zip(hidden.double(), wanted, strict=True):
        z = (weight.double() @ row) / temperature
        logs = z - z.exp().sum().log()
        logprobs.append(logs[word])
        entropies.append(-(logs.exp() * logs).sum())
    return torch.stack(logprobs), torch.stack(entropies)


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements that any operation makes or returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("most_logits", [1, 10**9], ids=["three chunks", "one chunk"])
def test_scores_and_gradients_equal_the_formula(temperature: float, most_logits: int) -> None:
    hidden, weight, wanted = random_inputs(9, 8, 300)

    found = linear_logprobs(
        hidden, weight, wanted,
        temperature=temperature, with_entropy=True, most_logits=most_logits,
    )  # fmt: skip
    expected = scores_by_loop(hidden, weight, wanted, temperature)

    slopes = torch.linspace(-1, 1, 9)
    loss = (found.logprobs * slopes).sum() + (found.entropies * slopes.flip(0)).sum()
    truth = (expected[0] * slopes).sum() + (expected[1] * slopes.flip(0)).sum()
    assert found.logprobs.dtype == found.entropies.dtype == torch.float32
    torch.testing.assert_close(found.logprobs.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropies.double(), expected[1], rtol=1e-4, atol=1e-5)
    for one, other in zip(
        torch.autograd.grad(loss, (hidden, weight)),
        torch.autograd.grad(truth, (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_entropy", [False, True])
def test_gradients_equal_finite_differences(with_entropy: bool) -> None:
    hidden, weight, wanted = random_inputs(3, 4, 260, torch.float64)

    def scores(hidden: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        found = linear_logprobs(
            hidden, weight, wanted, temperature=0.8, with_entropy=with_entropy, most_logits=1
        )
        return tuple(part for part in found if part is not None)

    assert torch.autograd.gradcheck(scores, (hidden, weight))


@pytest.mark.nightly
@pytest.mark.parametrize("with_entropy", [False, True])
def test_compiled_scores_equal_the_others(with_entropy: bool) -> None:
    hidden, weight, wanted = random_inputs(20, 16, 1000)

    found, expected = (
        linear_logprobs(
            hidden, weight, wanted, temperature=0.8, most_logits=20 * 300,
            with_entropy=with_entropy, compiled=compiled,
        )
        for compiled in (True, False)
    )  # fmt: skip

    gradients = []
    for scores in (found, expected):
        total = sum(part.square().sum() for part in scores if part is not None)
        gradients.append(torch.autograd.grad(total, (hidden, weight)))
    torch.testing.assert_close(found.logprobs, expected.logprobs)
    torch.testing.assert_close(found.entropies, expected.entropies, rtol=1e-4, atol=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_entropy_alone_can_be_differentiated() -> None:
    hidden, weight, wanted = random_inputs(4, 6, 30)

    found = linear_logprobs(hidden, weight, wanted, with_entropy=True).entropies
    expected = scores_by_loop(hidden, weight, wanted, 1.0)[1]

    assert found is not None
    (one,) = torch.autograd.grad(found.sum(), hidden)
    (other,) = torch.autograd.grad(expected.sum(), hidden)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_output_layer_gets_no_gradient() -> None:
    hidden, weight, wanted = random_inputs(4, 6, 30)

    linear_logprobs(hidden, weight.detach(), wanted).logprobs.sum().backward()

    assert hidden.grad is not None
    assert weight.grad is None


def test_half_precision_inputs_are_added_up_in_single_precision() -> None:
    """The only error left is that of the inputs, which the reference shares."""
    hidden, weight, wanted = random_inputs(50, 64, 500, torch.bfloat16)

    found = linear_logprobs(hidden, weight, wanted, with_entropy=True)
    logprobs, entropies = scores_by_loop(hidden, weight, wanted, 1.0)
    (one,) = torch.autograd.grad(found.logprobs.sum(), weight)
    (other,) = torch.autograd.grad(logprobs.sum(), weight)

    assert found.logprobs.dtype == torch.float32
    torch.testing.assert_close(found.logprobs.double(), logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.entropies.double(), entropies, rtol=1e-4, atol=1e-4)
    assert one.dtype == torch.bfloat16
    torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)


def test_sums_over_long_actions_are_exact_to_a_thousandth() -> None:
    hidden, weight, wanted = random_inputs(4096, 32, 1000)
    hidden, weight = hidden.detach(), weight.detach()

    found = linear_logprobs(hidden, weight, wanted).logprobs
    z = hidden.double() @ weight.double().T
    expected = z.gather(1, wanted[:, None]).squeeze(1) - z.logsumexp(1)

    assert abs(found.double().sum() - expected.sum()) < 1e-3
    assert abs(expected.sum()) > 10_000


def test_very_large_logits_stay_finite() -> None:
    hidden, weight, wanted = random_inputs(5, 8, 300)

    found = linear_logprobs(1e4 * hidden, weight, wanted, with_entropy=True, most_logits=1)
    (gradient,) = torch.autograd.grad(found.logprobs.sum() + found.entropies.sum(), hidden)

    assert bool(found.logprobs.isfinite().all())
    assert bool(gradient.isfinite().all())
    torch.testing.assert_close(found.entropies, torch.zeros(5), atol=0.05, rtol=0)


def test_a_row_that_is_not_a_number_spoils_no_other() -> None:
    hidden, weight, wanted = random_inputs(4, 8, 300)
    broken = hidden.detach().clone()
    broken[2] = torch.nan

    found = linear_logprobs(broken, weight, wanted, with_entropy=True)
    expected = linear_logprobs(hidden, weight, wanted, with_entropy=True)

    whole = torch.tensor([0, 1, 3])
    assert found.logprobs.isfinite().tolist() == [True, True, False, True]
    assert torch.equal(found.logprobs[whole], expected.logprobs[whole])
    assert torch.equal(found.entropies[whole], expected.entropies[whole])


def test_a_temperature_of_zero_is_refused() -> None:
    hidden, weight, wanted = random_inputs(1, 2, 3)

    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        linear_logprobs(hidden, weight, wanted, temperature=0.0)


def test_an_output_layer_with_a_bias_is_refused() -> None:
    with pytest.raises(ValueError, match="the output layer has a bias"):
        OutputLayer.of(nn.Linear(2, 3))


def test_no_tensor_of_targets_by_vocabulary_is_ever_made() -> None:
    rows, words, most = 600, 4000, 600 * 200
    hidden, weight, wanted = random_inputs(rows, 8, words)

    with LargestTensor() as largest:
        found = linear_logprobs(hidden, weight, wanted, with_entropy=True, most_logits=most)
        (found.logprobs.sum() + found.entropies.sum()).backward()
    with LargestTensor() as naive:
        (hidden @ weight.T).log_softmax(-1)

    assert largest.elements == most
    assert naive.elements == rows * words


def test_nor_does_the_model_make_one() -> None:
    config = Qwen3Config(
        vocab_size=8000, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        attn_implementation=PACKED_ATTENTION, tie_word_embeddings=True,
    )  # fmt: skip
    register_packed_attention()
    model, pack = POLICIES["qwen3"](config), targets_of(400)

    with LargestTensor() as largest:
        score_targets(model, pack).logprobs.sum().backward()

    assert pack.num_targets * config.vocab_size > 6 * MOST_LOGITS["cpu"]
    assert largest.elements <= MOST_LOGITS["cpu"]


def targets_of(length: int) -> Pack:
    ids = torch.arange(length) % 47
    segment = segment_of_examples(ids.tolist(), [0.0] + [1.0] * (length - 1), name="x")
    return pack_segments([segment], budget=length)[0]


class Products(TorchDispatchMode):
    """Counts matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += func is torch.ops.aten.mm.default
        return func(*args, **(kwargs or {}))


def test_logits_that_stay_are_not_computed_again_and_change_nothing() -> None:
    rows, words = 6, 5 * 128
    gradients, products = [], []
    for most_kept in (0, rows * 2 * 128, rows * words):
        hidden, weight, wanted = random_inputs(rows, 8, words)
        with Products() as counted:
            found = linear_logprobs(
                hidden, weight, wanted, with_entropy=True, most_logits=1, most_kept=most_kept
            )
            (found.logprobs.sum() + found.entropies.square().sum()).backward()
        gradients.append((hidden.grad, weight.grad))
        products.append(counted.count)

    assert products == [20, 18, 15]  # of five chunks: logits, perhaps again, and two gradients
    for one in gradients[1:]:
        assert all(map(torch.equal, one, gradients[0]))


@pytest.mark.parametrize("tied", [True, False])
def test_a_sharded_model_in_half_precision_scores_in_single_precision(
    tied: bool, tmp_path: Path
) -> None:
    """Weights are DTensors outside the root's forward, and bfloat16 inside it."""
    make_model(tmp_path, tied=tied)
    pack = targets_of(40)
    plain = load_model(tmp_path)
    expected = score_targets(plain, pack, with_entropy=True)
    expected.logprobs.sum().backward()

    with training_processes() as rank:
        model = shard(load_model(tmp_path), rank, compute_dtype=torch.bfloat16)
        found = score_targets(model, pack, with_entropy=True)
        found.logprobs.sum().backward()
        gradient = model.get_parameter("model.embed_tokens.weight").grad.full_tensor()

    assert found.logprobs.dtype == found.entropies.dtype == torch.float32
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0.05, atol=0.3)
    torch.testing.assert_close(found.entropies, expected.entropies, rtol=0.05, atol=0.2)
    wanted = plain.get_parameter("model.embed_tokens.weight").grad
    assert torch.nn.functional.cosine_similarity(gradient.ravel(), wanted.ravel(), 0) > 0.99


def test_the_model_still_returns_logits_when_no_tokens_are_wanted(tmp_path: Path) -> None:
    stock = make_model(tmp_path, tied=False)
    model = load_model(tmp_path)
    model.set_attn_implementation("sdpa")
    ids = torch.arange(6)[None]

    torch.testing.assert_close(model(input_ids=ids).logits, stock(input_ids=ids).logits)


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_keep_their_names_and_ties(tied: bool, tmp_path: Path) -> None:
    stock = make_model(tmp_path, tied=tied)
    model = load_model(tmp_path)

    assert [n for n, _ in model.named_parameters()] == [n for n, _ in stock.named_parameters()]
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
