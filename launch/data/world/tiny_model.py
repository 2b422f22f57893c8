"""The tiny policy: a Qwen3 of about a million parameters, before any training and when shipped."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

MAX_POSITIONS = 1024


def write_initial_model(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> int:
    """Write a model with random weights and its tokenizer as a Hugging Face folder.

    Embeddings and output layer are one tensor, so that copying a token, once learnt, works for
    every token; without that, rare tokens (a given year) are copied wrongly.

    Returns:
        The number of parameters.
    """
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        initializer_range=0.06,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def untie(folder: Path) -> None:
    """Give the output layer of a tied model folder a tensor of its own, with the same values.

    Servers may keep a tied output layer in a packed copy that a weight update would have to
    refresh; an output layer of its own is updated like any other.
    """
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    weights = load_file(weights_file)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, weights_file, metadata={"format": "pt"})
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"tie_word_embeddings": False}, indent=2) + "\n")
