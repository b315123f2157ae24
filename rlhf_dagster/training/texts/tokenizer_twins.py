"""Copies of a tokenizer with the same ids that read a text in another way than the tokenizer does."""

import json
import secrets
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_Way = tuple[frozenset[str], bool, int]
_TWINS: "WeakKeyDictionary[PreTrainedTokenizerBase, dict[_Way, Tokenizer | None]]" = WeakKeyDictionary()
"""The twins of each tokenizer, by what they do differently and by the number of its tokens."""


def twin(
    tokenizer: PreTrainedTokenizerBase, unmatched: Iterable[str] = (), *, continued: bool = False
) -> Tokenizer | None:
    """A copy that finds none of the tokens ``unmatched`` in a text, and puts no space before one that is ``continued``.

    None where there can be none: the tokenizer is written in Python, or a part of it is.
    """
    way = (frozenset(unmatched), continued, len(tokenizer))
    known = _TWINS.setdefault(tokenizer, {})
    if way not in known:
        known[way] = _made(tokenizer, way[0], continued)
    return known[way]


def starts_with_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a text that begins with a word is read as if it began with a space."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    backend = tokenizer.backend_tokenizer
    parts = [_content(part) for part in (backend.normalizer, backend.pre_tokenizer) if part is not None]
    return any(_adds_space(found) for part in parts for found in _mappings(part))


def _content(part: Any) -> Any:
    """A part of a backend as JSON; None for one that is written in Python."""
    with suppress(Exception):  # of no class of its own
        return json.loads(part.__getstate__())
    return None


def _made(tokenizer: PreTrainedTokenizerBase, unmatched: Iterable[str], continued: bool) -> Tokenizer | None:
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    content = None
    with suppress(Exception):  # of no class of its own: a part in Python cannot be written down
        content = json.loads(tokenizer.backend_tokenizer.to_str())
    if content is None:
        return None
    # What stands around a text, and limits of its length, are not read here.
    content |= {"post_processor": None, "truncation": None, "padding": None}
    # Letters and digits alone, which normalisers leave as they are; drawn, so that nobody can write them.
    _rename(content, {name: f"special{secrets.token_hex(16)}" for name in unmatched})
    if continued:
        content["normalizer"] = _without_space(content["normalizer"])
        content["pre_tokenizer"] = _without_space(content["pre_tokenizer"])
    return Tokenizer.from_str(json.dumps(content))


def _rename(content: dict[str, Any], names: dict[str, str]) -> None:
    """Give tokens other names, which have the same ids: among the added tokens and in the model's vocabulary."""
    for token in content["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "special": True, "normalized": False}
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocabulary.items()}
    else:  # Unigram's pieces and their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token"):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not {*merge, "".join(merge)} & names.keys()]


def _adds_space(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    if kind == "Metaspace":
        return part.get("prepend_scheme") != "never"
    return kind == "Prepend" or (kind == "ByteLevel" and bool(part.get("add_prefix_space")))


def _without_space(part: Any) -> Any:
    """A normaliser or pre-tokeniser without what puts a space before a text."""
    if not isinstance(part, dict) or part.get("type") == "Prepend":
        return None
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            part[name] = [kept for one in part[name] if (kept := _without_space(one)) is not None]
    if part.get("type") == "Metaspace":
        part |= {"prepend_scheme": "never"} | ({"add_prefix_space": False} if "add_prefix_space" in part else {})
    if part.get("type") == "ByteLevel":
        part["add_prefix_space"] = False
    return part


def _mappings(part: Any) -> Iterable[dict[str, Any]]:
    """A part and the parts of a sequence of them."""
    if isinstance(part, dict):
        yield part
        for name in ("normalizers", "pretokenizers"):
            for one in part.get(name, ()):
                yield from _mappings(one)
