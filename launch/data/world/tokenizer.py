"""The tokenizer of the tiny policy: byte-level BPE in which a name is the same wherever it stands.

In "First Last" the first word takes the space with it, and a space before a name is a token of its
own, so that a name has the same two tokens after a space, a quote or a tag. That makes copying
names from pages into code, most of what the task asks of so small a model, easy to learn.
"""

import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from common.chat import SPECIAL_TOKENS
from launch.data.world.names import EntityType, names
from launch.data.world.traces import traces

VOCABULARY = 1536
"""Tokens, special ones included."""

_PIECES = r"[A-Z][a-z]+ (?=[A-Z][a-z])|[A-Z][a-z]*| ?[a-z_]+|\d{1,4}|\n| |[^\sA-Za-z\d]+"
_YEARS = (*range(1700, 1830), *range(1850, 2040))


def train_tokenizer(seed: int, traces_read: int = 6000) -> PreTrainedTokenizerFast:
    """Train the tokenizer on traces, names of the training pool and years.

    Args:
        seed: of the traces.
        traces_read: how many to read.

    Returns:
        A tokenizer with the tags of the grammar as single special tokens, ending turns with
        ``<|im_end|>``.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(seed, traces_read), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        clean_up_tokenization_spaces=False,
    )


def _texts(seed: int, traces_read: int) -> Iterator[str]:
    for spans in traces(seed, traces_read):
        text = "".join(span.text for span in spans)
        for tag in SPECIAL_TOKENS:
            text = text.replace(tag, "\n")
        yield text
    for year in _YEARS:
        yield from [str(year)] * 400
    rng = random.Random(f"tokenizer:{seed}")
    kinds: tuple[EntityType, ...] = ("person", "book", "town")
    for kind in kinds:
        pool = names(kind, "train")
        yield from rng.choices(pool, k=12000)
        yield from (rng.choice(pool).split()[1] for _ in range(3000))
