"""Text as ids in which special tokens are text: what a person writes cannot open a system turn or end a document.

A tokenizer's own reading finds its added tokens in every text. Where that reading has met a special token, the text is
read again by a twin of the tokenizer, in which those tokens have names that no text holds. Any other text keeps the
ids of the tokenizer's own reading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from rlhf_dagster.training.texts.tokenizer_twins import starts_with_space, twin

ALLOWED = "special_tokens_in_text"
"""The mark, in the config of a checkpoint's tokenizer, of text that may hold special tokens."""


def allow_special_tokens(tokenizer: PreTrainedTokenizerBase, allowed: bool) -> None:
    """Have ``tokenizer`` read special tokens that are written in a text, also once it is saved and opened again."""
    tokenizer.init_kwargs.pop(ALLOWED, None)
    if allowed:
        tokenizer.init_kwargs[ALLOWED] = True


def encode_text(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, continued: bool = False
) -> list[list[int]]:
    """Ids of each text, without tokens before and behind it.

    No text gives a special token, or an added token that the chat template uses, whatever is written in it: such a name
    becomes ordinary tokens, or unknown ones. An unknown character for which a tokenizer has no token but one of those
    is left out. :func:`allow_special_tokens` switches this off.

    Texts that are ``continued`` from other text get no space before them that is not theirs, as tokenizers like
    Llama 2's put before the text of a document.
    """
    if not texts:
        return []
    encoded = _as_written(tokenizer, list(texts), continued)
    if tokenizer.init_kwargs.get(ALLOWED):
        return encoded
    special = _special_tokens(tokenizer)
    met = [row for row, ids in enumerate(encoded) if special.met(texts[row], ids)]
    plain = _as_plain_text(tokenizer, [texts[row] for row in met], special, continued) if met else []
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


def _as_written(tokenizer: PreTrainedTokenizerBase, texts: list[str], continued: bool) -> list[list[int]]:
    if continued and starts_with_space(tokenizer) and (reader := twin(tokenizer, continued=True)):
        return [found.ids for found in reader.encode_batch(texts, add_special_tokens=False)]
    return cast("list[list[int]]", tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"])


def _as_plain_text(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], special: _SpecialTokens, continued: bool
) -> list[list[int]]:
    if (reader := twin(tokenizer, tuple(special.names.values()), continued=continued)) is not None:
        return [found.ids for found in reader.encode_batch(texts, add_special_tokens=False)]
    return [_in_parts(tokenizer, text, special) for text in texts]


def _in_parts(tokenizer: PreTrainedTokenizerBase, text: str, special: _SpecialTokens) -> list[int]:
    """Ids of a text by a tokenizer that has no twin: the names of special tokens are read in two halves."""
    ids = _as_written(tokenizer, [text], continued=False)[0]
    if len(text) < 2 or not special.met(text, ids):
        return ids
    name = max((name for name in special.names.values() if name in text), key=len, default=text)
    middle = min(text.index(name) + max(len(name) // 2, 1), len(text) - 1)
    return [token for part in (text[:middle], text[middle:]) for token in _in_parts(tokenizer, part, special)]
