"""Tags of the chat templates of known model families, for servers whose tokenizer is not at hand.

A chat server turns text into tokens itself, and reads ``</s>`` or ``[INST]`` in the output of a
cell as the special tokens they are to its model. What looks like a tag of any family that we know
is broken by a space, as ``common.chat`` does with the tags of the grammar. Pure.
"""

import re
import unicodedata

from common.chat import escape_tags

_WORDS = (
    "s|pad|unk|bos|eos|mask|cls|sep|sop|eop|image|video|audio|think|code|output|tools|functions"
    "|(?:start|end|begin)_of_[a-z_]+|[a-z]+_soft_token"  # Gemma
    "|(?:start|end)_function_[a-z_]+|escape"  # FunctionGemma
    "|(?:tool|function)_[a-z_]+|arg_(?:key|value)"  # Qwen, Hermes, GLM
    "|(?:fim|repo|file|issue|jupyter|commit|gh)_[a-z_]+|reponame|filename|empty_output"  # StarCoder
    "|ref|box|quad|img|IMG_CONTEXT"  # Qwen-VL, InternVL
    "|minimax:[a-z_]+"
    "|(?:unused|extra_id_|reserved_|reserved_token_|mask:|SPECIAL_)[0-9]+"
    "|seed:[a-z_:]+"
    "|(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)(?:_TOKEN)?"  # Command
)
_BRACKETS = (
    "INST|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT)|SYSTEM_PROMPT|ARGS|CALL_ID|THINK"
    "|IMG(?:_BREAK|_END)?|PREFIX|MIDDLE|SUFFIX|(?:BEGIN_)?AUDIO|control_[0-9]+"  # Mistral
    "|[gs]?MASK|BOS|EOS|PAD|UNK|CLS|SEP"  # GLM, Kimi
)
_TAG = re.compile(
    rf"<(?=\||/?(?:{_WORDS})>|<?/?SYS>)|\[(?=/?(?:{_BRACKETS})\])"
    r"|\](?=~b\]|~!b\[|<\])|\[(?=e~\[)"  # MiniMax
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_OPENERS = re.compile("[<\\[\\]\uff1c\ufe64\uff3b\uff3d]")
_DROPPED = ("Cc", "Cf", "Mn")
"""Categories that normalising tokenizers leave out; a tag could be spelled through them."""


def break_all_tags(text: str) -> str:
    """``text`` in which no known tokenizer can read a tag; ordinary text is unchanged."""
    text = escape_tags(text)
    if not _OPENERS.search(text):
        return text
    folded, places = _folded(text)
    pieces, done = [], 0
    for found in _TAG.finditer(folded):
        after = places[found.start()] + 1
        pieces.append(text[done:after])
        done = after
    return " ".join([*pieces, text[done:]])


def _folded(text: str) -> tuple[str, range | list[int]]:
    """``text`` as a normalising tokenizer may see it, and where each character came from."""
    if text.isascii() and not _CONTROL.search(text):
        return text, range(len(text))
    folded: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        if letter not in "\n\t" and unicodedata.category(letter) in _DROPPED:
            continue
        seen = letter if letter.isascii() else unicodedata.normalize("NFKC", letter)
        folded.append(seen)
        places += [place] * len(seen)
    return "".join(folded), places
