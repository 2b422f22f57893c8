"""The policy's tokenizer, read from its ``tokenizer.json`` without loading a model library."""

from pathlib import Path

import tokenizers

from common.errors import InputError


class FileTokenizer:
    """A fast Hugging Face tokenizer; special tokens are written out, never added.

    What the file says about truncation and padding is for other uses and does not count here:
    every text becomes all of its tokens, and no others.
    """

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
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._controls = frozenset(
            number
            for number, token in self._tokenizer.get_added_tokens_decoder().items()
            if len(token.content) > 1 and not token.content.isspace()
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``; a special token written in it becomes its one id."""
        return list(self._encode(text).ids)

    def trace(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of ``text``, and the spans of its characters that became added tokens.

        White space and single characters are text, also where they are added tokens.
        """
        encoding = self._encode(text)
        ids = list(encoding.ids)
        places = [place for place, number in enumerate(ids) if number in self._controls]
        spans = (encoding.token_to_chars(place) for place in places)
        return ids, [span for span in spans if span is not None]

    def decode(self, ids: list[int]) -> str:
        """The text of ``ids``, special tokens included."""
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    @property
    def added_tokens(self) -> tuple[str, ...]:
        """Every added token, special or not, as text."""
        return tuple(token.content for token in self._tokenizer.get_added_tokens_decoder().values())

    def _encode(self, text: str) -> tokenizers.Encoding:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except TypeError:  # a lone surrogate, which no text in UTF-8 can hold
            whole = text.encode("utf-8", "replace").decode()
            return self._tokenizer.encode(whole, add_special_tokens=False)
