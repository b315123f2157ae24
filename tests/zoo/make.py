"""Making a tiny model: weights that depend on their names alone, and a tokenizer of words beside them."""

import zlib
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3_5Tokenizer,
)

from zoo.models import ZOO
from zoo.shrink import VOCABULARY, small_config

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
END = SPECIAL.index("</s>")
CANDIDATES = 6
"""Tokens tried for the place of end-of-text."""
WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u")][: VOCABULARY - 4]
"""The words that the models know, one token each."""
SPREAD = 0.3
"""Standard deviation of matrices: so large that a wrong position, mask or past changes log-probs by whole nats."""
NOISE = 0.1
"""Standard deviation of what is added to vectors, such as the weights of norms."""
BEGINNING = ("gemma2", "llama", "mistral")
"""Models whose tokenizer begins each text with `<s>`."""
OF_PIECES = {"qwen2": Qwen2Tokenizer, "qwen3_5_moe_text": Qwen3_5Tokenizer}
"""Architectures for which transformers opens this class whatever class was saved: byte-level pieces."""


def make_tiny(name: str, folder: Path) -> Path:
    """Save the model ``name`` of the zoo and its tokenizer in ``folder``, the same bytes each time."""
    tokenizer_for(name).save_pretrained(folder)
    tiny_model(name).save_pretrained(folder)
    return folder


def tiny_model(name: str) -> PreTrainedModel:
    """The model ``name`` of the zoo, in float32, for evaluation."""
    tiny = ZOO[name]
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(small_config(tiny.model_type, **tiny.changes))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            _draw(parameter_name, parameter)
        _let_it_end(model.float().eval())
    return model


def _let_it_end(model: PreTrainedModel) -> None:
    """Give end-of-text the output weights of another token, and the other way round, so that the model says it often.

    Responses then end at different steps, most of them before the longest. Where input and output weights are tied, a
    text with the other token becomes another text: of a few tokens that are often said the best is taken.
    """
    head = getattr(model.get_output_embeddings(), "weight", None)
    if head is None or len(head) < VOCABULARY:
        return
    often = _how_often(model)
    often[: len(SPECIAL)] = 0
    candidates = often.topk(CANDIDATES).indices.tolist()
    _swap(head, max(candidates, key=lambda token: _ends_with(model, head, token)))


def _ends_with(model: PreTrainedModel, head: Tensor, token: int) -> float:
    """How often the model would end if end-of-text had the output weights of ``token``."""
    _swap(head, token)
    share = float(_how_often(model)[END])
    _swap(head, token)
    return share


def _swap(head: Tensor, token: int) -> None:
    head[[END, token]] = head[[token, END]]


def _how_often(model: PreTrainedModel) -> Tensor:
    """The mean probability [V] of each token, over random texts."""
    ids = torch.randint(len(SPECIAL), VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(0))
    share: Tensor = model(input_ids=ids).logits.float().softmax(dim=-1).mean(dim=(0, 1))
    return share


def tokenizer_for(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of the model ``name``."""
    kind = OF_PIECES.get(ZOO[name].model_type)
    return word_tokenizer(name in BEGINNING) if kind is None else piece_tokenizer(kind)


def word_tokenizer(begins: bool = False) -> PreTrainedTokenizerBase:
    """Words of two letters, one token each; with ``begins`` a text begins with `<s>`."""
    known = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    if begins:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", known["<s>"])])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_special_names())


def piece_tokenizer(kind: type) -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of ``kind`` for the same words: blanks are tokens, and so are most of the words."""
    letters = ["Ġ", *sorted(set("".join(WORDS)))]
    merges = [(word[0], word[1]) for word in WORDS][: VOCABULARY - len(SPECIAL) - len(letters)]
    pieces = [*SPECIAL, *letters, *map("".join, merges)]
    tokenizer: PreTrainedTokenizerBase = kind(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges, **_special_names()
    )
    return tokenizer


def _special_names() -> dict[str, str]:
    return dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))


def _draw(name: str, parameter: Tensor) -> None:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
    if parameter.dim() > 1:
        parameter.copy_(noise * SPREAD)
    else:
        parameter.add_(noise * NOISE)
