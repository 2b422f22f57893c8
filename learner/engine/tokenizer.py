"""Loads the tokenizer of a model folder as training needs it: every text whole, nothing added."""

from pathlib import Path

from tokenizers import Tokenizer

from common.errors import InputError

TOKENIZER = "tokenizer.json"


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a ``tokenizer.json``, without the cutting and padding that it may ask for.

    Many published files cut every text to the length some inference code wanted, or fill it up.

    Raises:
        InputError: it is missing or cannot be used.
    """
    if not path.is_file():
        raise InputError(f"model folder '{path.parent}' holds no {path.name}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"'{path}' is not a usable tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def check_vocabulary(path: Path, embeddings: int) -> None:
    """Check that every token of a tokenizer has an embedding.

    Raises:
        InputError: it cannot be used, or belongs to another model.
    """
    ids = load_tokenizer(path).get_vocab(with_added_tokens=True).values()
    highest = max(ids, default=0)
    if highest >= embeddings:
        raise InputError(
            f"'{path}' has token ids up to {highest}, but the model beside it only {embeddings} "
            "embeddings; the tokenizer belongs to another model"
        )
