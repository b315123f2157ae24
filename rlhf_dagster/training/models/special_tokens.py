"""Text as ids in which special tokens are text: what a person writes cannot open a system turn or end a document.

A tokenizer's own reading finds its added tokens in every text. Where that reading has met a special token, the text is
read again by a twin of the tokenizer, in which those tokens have names that no text holds. Any other text keeps the
ids of the tokenizer's own reading.
"""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

ALLOWED = "special_tokens_in_text"
"""The mark, in the config of a checkpoint's tokenizer, of text that may hold special tokens."""


def allow_special_tokens(tokenizer: PreTrainedTokenizerBase, allowed: bool) -> None:
    """Have ``tokenizer`` read special tokens that are written in a text, also once it is saved and opened again."""
    tokenizer.init_kwargs.pop(ALLOWED, None)
    if allowed:
        tokenizer.init_kwargs[ALLOWED] = True


def encode_text(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without tokens before and behind it.

    No text gives a special token, or an added token that the chat template uses, whatever is written in it: such a name
    becomes ordinary tokens, or unknown ones. An unknown character for which a tokenizer has no token but one of those
    is left out. :func:`allow_special_tokens` switches this off.
    """
    if not texts:
        return []
    encoded = _as_written(tokenizer, list(texts))
    if tokenizer.init_kwargs.get(ALLOWED):
        return encoded
    special = _special_tokens(tokenizer)
    met = [row for row, ids in enumerate(encoded) if special.met(texts[row], ids)]
    if met:
        plain = _as_plain_text(tokenizer, [texts[row] for row in met], special)
        encoded = [*encoded]
        for row, ids in zip(met, plain, strict=True):
            encoded[row] = [token for token in ids if token not in special.control]
    return encoded


@dataclass(frozen=True)
class _SpecialTokens:
    names: dict[int, str]
    """The text of each special token, by id."""
    unknown: int | None
    """What a word outside the vocabulary becomes, where that is a token of its own."""

    @property
    def control(self) -> set[int]:
        """Ids that no text may give."""
        return self.names.keys() - {self.unknown}

    def met(self, text: str, ids: Iterable[int]) -> bool:
        """Whether a reading of ``text`` as ``ids`` may have taken a special token for what is written there."""
        found = self.names.keys() & set(ids)
        return bool(found - {self.unknown}) or any(self.names[token] in text for token in found)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> _SpecialTokens:
    """Tokens that are marked as special, and those added ones that the chat template writes."""
    template = str(tokenizer.chat_template or "")
    names = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token.special or (token.content.strip() and token.content in template):
            names[token_id] = token.content
    roles = (name for name in tokenizer.SPECIAL_TOKENS_ATTRIBUTES if name != "unk_token")
    others = {getattr(tokenizer, f"{name}_id") for name in roles}
    unknown = tokenizer.unk_token_id
    return _SpecialTokens(names, None if unknown in others else unknown)


def _as_written(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return cast("list[list[int]]", tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])


def _as_plain_text(tokenizer: PreTrainedTokenizerBase, texts: list[str], special: _SpecialTokens) -> list[list[int]]:
    twin = _twin(tokenizer, special)
    if twin is None:
        return [_in_parts(tokenizer, text, special) for text in texts]
    return [found.ids for found in twin.encode_batch(texts, add_special_tokens=False)]


_TWINS: "WeakKeyDictionary[PreTrainedTokenizerBase, tuple[dict[int, str], Tokenizer | None]]" = WeakKeyDictionary()
"""The twin of each tokenizer, with the special tokens that the tokenizer had then."""


def _twin(tokenizer: PreTrainedTokenizerBase, special: _SpecialTokens) -> Tokenizer | None:
    """A copy of a tokenizer with the same ids, whose special tokens have names that no text holds.

    None where there is none: the tokenizer is written in Python, or a part of it is.
    """
    names, twin = _TWINS.get(tokenizer, (None, None))
    if names != special.names:
        twin = _renamed(tokenizer, special.names)
        _TWINS[tokenizer] = (special.names, twin)
    return twin


def _renamed(tokenizer: PreTrainedTokenizerBase, special: dict[int, str]) -> Tokenizer | None:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    try:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
    except Exception:  # of no class of its own: a part in Python cannot be written down
        return None
    # Letters and digits alone, which normalisers leave as they are; drawn, so that nobody can write them.
    names = {name: f"special{secrets.token_hex(16)}" for name in special.values()}
    # What stands around a text, and limits of its length, are not read here.
    content |= {"post_processor": None, "truncation": None, "padding": None}
    for token in content["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "special": True, "normalized": False}
    _rename_in_model(content["model"], names)
    return Tokenizer.from_str(json.dumps(content))


def _rename_in_model(model: dict[str, Any], names: dict[str, str]) -> None:
    """Rename ``names`` in a model's vocabulary: a mapping to ids, or pairs of a piece and its score (Unigram)."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not {*merge, "".join(merge)} & names.keys()]


def _in_parts(tokenizer: PreTrainedTokenizerBase, text: str, special: _SpecialTokens) -> list[int]:
    """Ids of a text by a tokenizer without a backend: the names of special tokens are read in two halves."""
    ids = _as_written(tokenizer, [text])[0]
    if len(text) < 2 or not special.met(text, ids):
        return ids
    name = max((name for name in special.names.values() if name in text), key=len, default=text)
    middle = min(text.index(name) + max(len(name) // 2, 1), len(text) - 1)
    return [token for part in (text[:middle], text[middle:]) for token in _in_parts(tokenizer, part, special)]
