"""A tiny model with a tokenizer of bytes and a chat template, for tests that need text."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from tests.tiny_policy import FAMILIES

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_text_model(
    folder: Path,
    family: str = "qwen3",
    *,
    tied: bool = True,
    template: str = CHAT_TEMPLATE,
    extra_embeddings: int = 5,
) -> Path:
    """Write a random model of two layers that knows every byte; returns the folder."""
    tokenizer = make_tokenizer(template)
    tokenizer.save_pretrained(folder)
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    config = config_class(
        vocab_size=len(tokenizer) + extra_embeddings,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=0,
    )
    model_class(config).float().save_pretrained(folder)
    return folder


def make_tokenizer(template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """One token per byte, and one per tag of a conversation."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0])
    fast.chat_template = template or None
    return fast
