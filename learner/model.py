"""Loads the policy from a Hugging Face folder and computes log-probabilities of packs."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.errors import InputError
from learner.attention import PACKED_ATTENTION, layout_of, register_packed_attention
from learner.packing import Pack

FAMILIES = ("qwen2", "qwen3", "llama")
"""Values of ``model_type`` in config.json that are supported and tested."""

_CHUNK_TOKENS = 1024


def load_model(path: str | Path, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load the policy for training, with attention over packs.

    Args:
        path: local Hugging Face folder: config.json, weights, and usually a tokenizer.
        dtype: how the weights are stored. The optimizer wants float32; the compute type is
            chosen in ``learner.sharding.shard``.

    Raises:
        InputError: there is no such folder, it is no model of a supported family, its weights
            do not fit its config, or its tokenizer has more ids than the model.
    """
    folder = Path(path)
    check_model_folder(folder)
    register_packed_attention()
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            str(folder), dtype=dtype, attn_implementation=PACKED_ATTENTION, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"model folder '{folder}' cannot be loaded: {error}") from error
    return model.train()


def check_model_folder(folder: Path) -> None:
    """Find what is wrong with a model folder without loading its weights.

    Raises:
        InputError: see ``load_model``.
    """
    if not folder.is_dir():
        raise InputError(
            f"model.path '{folder}' is not a folder; expected a local Hugging Face folder with "
            "config.json, safetensors and tokenizer files"
        )
    config = _read_config(folder)
    family = config.get("model_type")
    if family not in FAMILIES:
        raise InputError(
            f"model folder '{folder}' is of family {family!r}; supported are {', '.join(FAMILIES)}"
        )
    tokenizer = folder / "tokenizer.json"
    if tokenizer.exists():
        _check_vocabulary(tokenizer, int(config.get("vocab_size", 0)))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"model folder '{folder}' has no config.json") from error
    except ValueError as error:
        raise InputError(f"'{folder}/config.json' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"'{folder}/config.json' must hold a JSON object")
    return config


def _check_vocabulary(tokenizer: Path, vocabulary: int) -> None:
    ids = Tokenizer.from_file(str(tokenizer)).get_vocab(with_added_tokens=True).values()
    highest = max(ids, default=0)
    if highest >= vocabulary:
        raise InputError(
            f"'{tokenizer}' has token ids up to {highest}, but the model beside it only "
            f"{vocabulary} embeddings; the tokenizer belongs to another model"
        )


def token_logprobs(model: nn.Module, pack: Pack, *, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of the targets of a pack under the model.

    The output layer only runs where the next token is a target. The call goes through the root
    module, so the hooks of FSDP run; a pack without targets runs the same collectives.

    Args:
        model: from ``load_model``, sharded or not.
        pack: on the model's device.
        temperature: the temperature the targets were sampled at, above 0; logits are divided
            by it, so that the result is comparable with the behaviour log-probabilities.

    Returns:
        [N] float32, natural log, differentiable.
    """
    logits = model(
        input_ids=pack.token_ids.unsqueeze(0),
        position_ids=pack.position_ids.unsqueeze(0),
        use_cache=False,
        logits_to_keep=pack.targets - 1,
        layout=layout_of(pack.segment_lengths),
    ).logits.squeeze(0)
    wanted = pack.token_ids[pack.targets]
    logprobs: Tensor = _SelectedLogprobs.apply(logits, wanted, temperature)  # type: ignore[no-untyped-call]
    return logprobs


class _SelectedLogprobs(torch.autograd.Function):
    """log softmax(logits / temperature) at one id per row, in float32.

    Rows are handled in chunks, so that besides the logits and their gradient no other tensor of
    [rows, vocabulary] exists.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Logits [N, V] and ids [N] to log-probabilities [N] float32."""
        logprobs = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
        for rows in _chunks(len(logits)):
            every = _scaled(logits[rows], temperature).log_softmax(-1)
            logprobs[rows] = every.gather(-1, wanted[rows, None]).squeeze(-1)
        ctx.save_for_backward(logits, wanted, logprobs)
        ctx.temperature = temperature
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """Derivative with respect to the logits: (one-hot - softmax) / temperature."""
        logits, wanted, logprobs = ctx.saved_tensors
        (upstream,) = grads
        slope = upstream.float()[:, None] / ctx.temperature
        result = torch.empty_like(logits)
        for rows in _chunks(len(logits)):
            scaled, ids = _scaled(logits[rows], ctx.temperature), wanted[rows, None]
            normaliser = scaled.gather(-1, ids) - logprobs[rows, None]
            part = (scaled - normaliser).exp_().mul_(-slope[rows])
            result[rows] = part.scatter_add_(-1, ids, slope[rows])
        return result, None, None


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def _chunks(length: int) -> list[slice]:
    return [slice(start, start + _CHUNK_TOKENS) for start in range(0, length, _CHUNK_TOKENS)]
