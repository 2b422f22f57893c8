"""Packed log-probabilities and their gradients equal those of each segment alone in stock HF."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn

from common.errors import InputError
from learner.engine.model import load_model, token_logprobs
from learner.packs.packing import Pack, pack_segments, segment_of_examples
from tests.tiny_policy import VOCABULARY, make_model


def random_pack(lengths: list[int]) -> Pack:
    rng = np.random.default_rng(0)
    segments = [
        segment_of_examples(
            rng.integers(0, VOCABULARY, length).astype(np.int32),
            np.concatenate([[0.0], rng.integers(0, 2, length - 1)]).astype(np.float32),
            name=str(length),
        )
        for length in lengths
    ]
    (pack,) = pack_segments(segments, budget=sum(lengths))
    return pack


def logprobs_by_segment(model: nn.Module, pack: Pack, temperature: float) -> Tensor:
    """Each segment through the stock model by itself."""
    found, start = [], 0
    for length in pack.segment_lengths.tolist():
        ids = pack.token_ids[start : start + length]
        logits = model(input_ids=ids[None]).logits[0] / temperature
        for target in pack.targets.tolist():
            if start <= target < start + length:
                place = target - start
                found.append(logits[place - 1].log_softmax(-1)[ids[place]])
        start += length
    return torch.stack(found)


@pytest.mark.parametrize(
    ("family", "tied", "key_heads"),
    [
        ("qwen3", True, 4),
        ("qwen3", False, 2),
        ("llama", True, 2),
        ("llama", False, 1),
        ("qwen2", True, 2),
    ],
)
def test_packed_logprobs_and_gradients_equal_stock_ones(
    family: str, tied: bool, key_heads: int, tmp_path: Path
) -> None:
    stock = make_model(tmp_path, family, tied=tied, key_heads=key_heads)
    model = load_model(tmp_path)
    pack = random_pack([17, 1, 30, 5, 9])

    found = token_logprobs(model, pack, temperature=0.7)
    expected = logprobs_by_segment(stock, pack, 0.7)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    slope = torch.linspace(-1, 1, len(found))
    ours = torch.autograd.grad((found * slope).sum(), list(model.parameters()))
    theirs = torch.autograd.grad((expected * slope).sum(), list(stock.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_pack_without_targets_gives_zero_gradients_to_every_parameter(tmp_path: Path) -> None:
    make_model(tmp_path)
    model = load_model(tmp_path)
    (filler,) = pack_segments([], budget=4)

    token_logprobs(model, filler).sum().backward()

    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(grad is not None and not bool(grad.any()) for grad in gradients)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere' is not a folder"):
        load_model(tmp_path / "nowhere")


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_model(tmp_path)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    make_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()

    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path)


def test_an_unsupported_family_is_refused_with_the_supported_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))

    with pytest.raises(InputError, match="family 'gpt2'; supported are qwen2, qwen3, llama"):
        load_model(tmp_path)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] += 8
    (tmp_path / "config.json").write_text(json.dumps(config))

    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    words = {f"w{number}": number for number in range(VOCABULARY + 3)}
    Tokenizer(WordLevel(words, unk_token="w0")).save(str(tmp_path / "tokenizer.json"))

    with pytest.raises(InputError, match=r"ids up to 52, but the model beside it only 50"):
        load_model(tmp_path)
