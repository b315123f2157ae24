"""The words of a text, in every language: what the figures about repetition, copying and length count."""

import re
import unicodedata
from collections.abc import Sequence

Gram = tuple[str, ...]
UNSPACED = {
    "Han": "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00016fe0-\U00018aff\U00020000-\U0003fffd",
    "Kana and Bopomofo": "\u3040-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f\U0001aff0-\U0001b16f",
    "Thai": "\u0e01-\u0e3a\u0e40-\u0e4e",
    "Lao": "\u0e80-\u0ece\u0edc-\u0edf",
    "Tibetan": "\u0f00\u0f40-\u0fbc",
    "Burmese": "\u1000-\u103f\u104c-\u108f\u109a-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f",
    "Khmer": "\u1780-\u17d3\u17dc-\u17dd",
    "Tai Le, Tai Lue, Tham and Viet": "\u1950-\u19cf\u1a20-\u1a7c\uaa80-\uaadf",
    "Javanese and Balinese": "\ua980-\ua9c0\u1b00-\u1b4b",
    "Yi": "\ua000-\ua4cf",
    "their punctuation": "\u0e4f\u0e5a\u0e5b\u0f01-\u0f14\u104a\u104b\u17d4-\u17da\u3001-\u3004\u3008-\u3020\u3030"
    "\ufe10-\ufe19\ufe30-\ufe4f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65",
}
"""Ranges of characters of the scripts that write no space between words, as a class of :mod:`re` holds them."""


def words(text: str) -> list[str]:
    """The words of ``text`` in their order, as they are written.

    A word is what stands between white space. Where a script writes none between words (:data:`UNSPACED`) each
    character is one, with the marks that are combined with it: finding the words there takes a dictionary of the
    language, and a repeated or copied piece of text repeats its characters just as well. SacreBLEU (Post 2018) cuts
    Chinese for the same reason. A zero-width space separates words, as Thai and Khmer use it.
    """
    return _WORD.findall(text)


def bare_words(text: str) -> list[str]:
    """:func:`words` in lower case, of letters, digits and marks alone: all else counts as white space."""
    lower = text.lower()
    if lower.isascii():
        return _ASCII.findall(lower)
    return words("".join(one if _is_written(one) else " " for one in lower))


def ngrams(said: Sequence[str], n: int) -> list[Gram]:
    """Every ``n`` words in a row, in their order."""
    return [tuple(said[start : start + n]) for start in range(len(said) - n + 1)]


def _is_written(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _marks() -> str:
    """Characters of the unspaced scripts that are written above, below or around another, and variation selectors."""
    plain = re.compile(f"[{''.join(UNSPACED.values())}]")
    below = (chr(code) for code in range(0x0E00, 0xB000))
    return "".join(one for one in below if unicodedata.category(one) in ("Mn", "Mc") and plain.match(one))


_MARKS = f"{_marks()}\ufe00-\ufe0f\U000e0100-\U000e01ef"
_SPACELESS = "".join(UNSPACED.values())
_WORD = re.compile(rf"[{_SPACELESS}][{_MARKS}]*|[^\s\u200b{_SPACELESS}]+")
_ASCII = re.compile("[a-z0-9]+")
