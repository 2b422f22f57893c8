"""The policy's tokenizer, read from its ``tokenizer.json`` without loading a model library."""

from pathlib import Path

import tokenizers

from common.errors import InputError


class FileTokenizer:
    """A fast Hugging Face tokenizer; special tokens are written out, never added."""

    def __init__(self, folder: Path) -> None:
        """Read ``folder/tokenizer.json``.

        Raises:
            InputError: the file is missing or is not a tokenizer.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise InputError(
                f"model folder {folder} has no tokenizer.json; save the tokenizer there with "
                "save_pretrained (a fast tokenizer is needed)"
            )
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception on malformed files
            raise InputError(f"{path} is not a tokenizer: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; a special token written in it becomes its one id."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens included."""
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    @property
    def added_tokens(self) -> tuple[str, ...]:
        """Every added token, special or not, as text."""
        return tuple(token.content for token in self._tokenizer.get_added_tokens_decoder().values())
