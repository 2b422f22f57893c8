"""Words of a text in any script: what answers are compared by, and what search looks up.

A token is a word or a number; in scripts that are written without spaces (Han, Kana, Thai, Lao,
Khmer, Burmese) each character is one, and Hangul has spaces. Case, width, ligatures, accents of
Latin letters, digits of other scripts and invisible characters make no difference. Symbols are
tokens only where they carry the meaning: ``C#``, ``AB-``, ``x^2``, ``p + q``, ``-5``, ``50%``.

Numbers lose the commas between thousands, in groups of three, and no others: ``1,234`` is one
number, ``3,14`` and ``1,2,3`` are lists. Everything here takes time linear in its text.
"""

import re
import string
import unicodedata
from functools import lru_cache

_UNSPACED = re.compile(
    "["
    "\u0e01-\u0e5b\u0e81-\u0edf\u1000-\u109f\u1780-\u17df"  # Thai, Lao, Burmese, Khmer
    "\u3041-\u309f\u30a0-\u30ff\u31f0-\u31ff"  # Kana
    "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "]"
)
_MATH = "±≤≥≠¬√∞∪∩∈∉⊂⊃⊆∧∨∀∃∑∏∫÷∂∇"
_NO_WORD = rf"\s{re.escape(string.punctuation)}♭"
LETTER = rf"[^\d{_NO_WORD}]"
"""One character of a word in folded text, but no digit; a pattern."""
WORD_CHARACTER = rf"[^{_NO_WORD}]"
"""One character of a word or number in folded text; a pattern."""

_OPENS = r"(?<![^\s(\[{,;:=^<>/*|$\"'])"  # what a sign of a number may stand behind
_DIGITS = r"\d++(?:\.\d++)?+"
_REST = rf"(?:{LETTER}++|{_DIGITS})*+"
_NO_BEGINNING = r"[ !\"#$%&'()*,./:;=?@\[\\\]_`{|}~♭]{0,3}+"  # no token begins with them
_USUAL = r"[a-z]++(?=[ ,.;:!?)'\"|]|\Z)|[0-9]++(?=[ ,;:!?)]|\Z)"  # quicker found than by:
ANY_TOKEN = (
    rf"{LETTER}{{1,2}}\d{{0,2}}[-#♭](?!{WORD_CHARACTER}|[-#♭])"  # AB-, C#, NO3-
    rf"|{LETTER}{_REST}(?:\+{{1,2}}(?!{WORD_CHARACTER}|\+))?"  # v1.0, C++, A+
    rf"|(?:{_OPENS}-(?=\d))?{_DIGITS}{_REST}(?:(?<=\d)%)?"  # -5, 3rd, 50%
    rf"|(?<!\S)[+^<>](?!\S)|(?<=\s)\+(?={LETTER})"  # p + q, p < q
    rf"|(?<={WORD_CHARACTER})\+(?=[(\[]?{WORD_CHARACTER})|(?<=[)\]])\+(?=[(\[]?{WORD_CHARACTER})"
    rf"|(?<={WORD_CHARACTER})\^(?=[(\[{{]?-?{WORD_CHARACTER})|(?<=[)\]}}])\^(?=[(\[{{]?-?{WORD_CHARACTER})"
    r"|(?<![^\s\d)])[<>](?=\s*+-?\d)"
)
"""What is a token; a pattern without groups."""

_TOKEN = re.compile(f"{_NO_BEGINNING}({_USUAL}|{ANY_TOKEN})")
INITIALS = re.compile(
    rf"(?<!{WORD_CHARACTER}){LETTER}\."
    rf"(?:(?:\s?{LETTER}\.)++(?:{LETTER}(?!{WORD_CHARACTER}))?+|{LETTER}(?!{WORD_CHARACTER}))"
)
_ONE_INITIAL = re.compile(rf"\.(?<={LETTER}\.)(?<!{WORD_CHARACTER}{LETTER}\.)")
_POINT_FIRST = re.compile(r"\.(?=\d)(?<![\w.]\.)")
THOUSANDS = re.compile(r"(?<!\d)(?<!\d[.,])\d{1,3}(?:,\d{3})++(?!\d|,\d)")
_COMMA_IN_NUMBER = re.compile(r",\d")
POINTS = re.compile(r"(?<![\d.])\d++(?:\.\d++){2,}+")
_TWO_POINTS = re.compile(r"\.\d++\.")
SPACED_PERCENT = re.compile(r"(?<=\d)\s++%")
_PERCENT_WORDS = re.compile(r"(?<![^ ])([\d.-]*\d)(?: percent| per cent)(?![^ ])")
SIGN_BEFORE_CURRENCY = re.compile(rf"{_OPENS}-\$\s?(?=\.?\d)")

_FOREIGN = re.compile("[^\x00-\x7f]++")
_RAISED = re.compile("[\u207a\u207b]?[\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215f\u2189]")
_MARKS = str.maketrans(dict.fromkeys("™℠®©"))
_PLAIN = {
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"),
    **dict.fromkeys("‘’‛ʻʼʹ′", "'"),
    **dict.fromkeys("⁄∕", "/"),
    "×": " x ",
    "♯": "#",
    "٫": ".",
    "٬": ",",
    "٪": "%",
    "\u034f": "",
}
_KEPT = frozenset("♭" + string.punctuation)


class _Plainer(dict[int, str]):
    """What becomes of a character; filled as characters come, for ``str.translate``."""

    def __missing__(self, code: int) -> str:
        self[code] = plain = _plain(chr(code))
        return plain


_TABLE = _Plainer()


def word_tokens(text: str) -> list[str]:
    """The words of ``text`` in their order; case, accents of Latin letters and width are gone.

    Articles are kept. The tokens of ``" ".join(word_tokens(text))`` are the same ones.
    """
    folded = fold(text)
    tokens = scan(join_initials(folded))
    if folded.isascii():
        return tokens
    return [token if token.isascii() else _without_accents(token) for token in tokens]


def fold(text: str) -> str:
    """NFKC and case folding, with plain signs: the form that the patterns of this module read.

    Raised digits get a caret (``10²`` is ``10^2``), currencies become ``$``, digits of all scripts
    ASCII ones; invisible characters go, and other punctuation and symbols become ``|``. Characters
    that are a word each have spaces around them.

    ASCII characters begin something of their own in every normal form, so that a text may be
    folded in parts that begin with one: few of most texts need more than case folding.
    """
    if text.isascii():
        return _fold_ascii(text)
    parts: list[str] = []
    done = 0
    for foreign in _FOREIGN.finditer(text):
        begin = max(0, foreign.start() - 1)  # the letter that accents may belong to
        parts += _fold_ascii(text[done:begin]), _fold_part(text[begin : foreign.end()])
        done = foreign.end()
    return "".join([*parts, _fold_ascii(text[done:])])


def _fold_ascii(text: str) -> str:
    return text.casefold().translate(_TABLE)


def _fold_part(text: str) -> str:
    return _fold_short(text) if len(text) <= _SHORT else fold_whole(text)


def fold_whole(text: str) -> str:
    """What ``fold`` gives, for any text without a look at its parts."""
    text = _VULGAR.sub(r" \g<0> ", _RAISED.sub(r"^\g<0>", text.translate(_MARKS)))
    text = unicodedata.normalize("NFKC", text).casefold().translate(_TABLE)
    return unicodedata.normalize("NFC", text)


_SHORT = 4
"""Characters of a part that may come often, e.g. a letter with its accent."""
_fold_short = lru_cache(1 << 14)(fold_whole)


def join_initials(folded: str) -> str:
    """``u.s.`` and ``j. r. r.`` as one word each."""
    if not _ONE_INITIAL.search(folded):
        return folded
    return INITIALS.sub(lambda found: re.sub(r"[.\s]", "", found.group()) + " ", folded)


def scan(folded: str) -> list[str]:
    """The tokens of folded text, with their accents."""
    tokens = _TOKEN.findall(plain_numbers(folded))
    if "percent" not in tokens and "cent" not in tokens:
        return tokens
    return _PERCENT_WORDS.sub(r"\1%", " ".join(tokens)).split(" ")


def plain_numbers(folded: str) -> str:
    """The text with its numbers written as the patterns of tokens read them.

    What asks whether there is anything to change is quicker than the pattern that changes it.
    """
    text = SIGN_BEFORE_CURRENCY.sub(" -", folded) if "-$" in folded else folded
    text = _POINT_FIRST.sub("0.", text)
    if _COMMA_IN_NUMBER.search(text):
        text = THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)
    if _TWO_POINTS.search(text):
        text = POINTS.sub(lambda found: found.group().replace(".", " "), text)
    return SPACED_PERCENT.sub("%", text) if "%" in text else text


def without_accents(token: str) -> str:
    """The token without the accents of its Latin letters; other scripts keep their marks."""
    return token if token.isascii() else _without_accents(token)


@lru_cache(1 << 14)
def _without_accents(token: str) -> str:
    kept: list[str] = []
    latin = False
    for character in unicodedata.normalize("NFD", token):
        if unicodedata.category(character) != "Mn":
            latin = "LATIN" in unicodedata.name(character, "")
        elif latin:
            continue
        kept.append(character)
    return unicodedata.normalize("NFC", "".join(kept))


def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    category = unicodedata.category(character)
    if character in _MATH:
        return f" {character} "
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    if category == "Sc":
        return "$"
    if category[0] in "PS" and character not in _KEPT:
        return "|"
    if category[0] in "ZC":
        return " "
    return f" {character} " if _UNSPACED.match(character) else character
