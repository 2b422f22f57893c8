"""The tiny policy before any training: a Qwen3 of about 1.2 million parameters."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

MAX_POSITIONS = 1024


def write_initial_model(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int) -> int:
    """Write a model with random weights and its tokenizer as a Hugging Face folder.

    Embeddings and output layer are not tied, because servers may keep a tied output layer in a
    packed copy that a weight update would have to refresh.

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
        tie_word_embeddings=False,
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
