"""Tokenizers of every kind that language models come with, trained on the spot on a few sentences."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps.",
    "a small user and an assistant talk about system design; hello world!",
    "日本語の文章と 中文 😀 👍🏽 ne' più così",
] * 4
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SMALL = 400


def byte_level(special: Sequence[str] = ("<|endoftext|>",), *, prefix_space: bool = False) -> Tokenizer:
    """BPE on bytes, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _trained(tokenizer, trainers.BpeTrainer, special, initial_alphabet=alphabet)


def metaspace(special: Sequence[str] = ("<unk>", "<s>", "</s>"), scheme: str = "first") -> Tokenizer:
    """BPE on words that carry their space as ``▁``, other characters as bytes, as Llama 2's (``scheme`` first)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if scheme != "never" else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    trained = _trained(tokenizer, trainers.BpeTrainer, special, limit_alphabet=60)
    content = json.loads(trained.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {byte: len(vocabulary) + index for index, byte in enumerate(BYTES)}
    content["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(content))


def prepended() -> Tokenizer:
    """:func:`metaspace` by a normaliser in place of a pre-tokeniser, as Llama's first files."""
    tokenizer = metaspace(scheme="first")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    return tokenizer


def unigram() -> Tokenizer:
    """Unigram on words that carry their space, as XGLM's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ("<s>", "<pad>", "</s>", "<unk>")
    return _trained(tokenizer, trainers.UnigramTrainer, special, unk_token="<unk>")


def word_piece() -> Tokenizer:
    """WordPiece in lower case, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _trained(tokenizer, trainers.WordPieceTrainer, ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _trained(tokenizer, trainers.WordLevelTrainer, ("<pad>", "<|endoftext|>", "<unk>"))


def _trained(
    tokenizer: Tokenizer, trainer: Any, special: Sequence[str], size: int = SMALL, **options: Any
) -> Tokenizer:
    made = trainer(vocab_size=size, special_tokens=list(special), show_progress=False, **options)
    tokenizer.train_from_iterator(CORPUS, made)
    return tokenizer


def opened(tokenizer: Tokenizer, before: str = "", behind: str = "", **special: Any) -> PreTrainedTokenizerBase:
    """A tokenizer of transformers with a padding token, which puts ``before`` and ``behind`` around each text."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    named = [token for token in (before.split() + behind.split()) if token]
    tokenizer.add_special_tokens(named)
    if named:
        parts = [f"{before} $A {behind}".split(), f"{before} $A {behind} $B:1".split()]
        ids = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(named)]
        tokenizer.post_processor = processors.TemplateProcessing(single=parts[0], pair=parts[1], special_tokens=ids)
    special.setdefault("pad_token", "<|padding|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def all_kinds() -> dict[str, PreTrainedTokenizerBase]:
    """One tokenizer of each kind, by name, those with tokens around a text among them."""
    llama = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {
        "byte-level BPE": opened(byte_level(), eos_token="<|endoftext|>"),
        "byte-level BPE with bos": opened(byte_level(), "<|begin|>", bos_token="<|begin|>", eos_token="<|endoftext|>"),
        "byte-level BPE with a prefix space": opened(byte_level(prefix_space=True), eos_token="<|endoftext|>"),
        "Metaspace BPE with bos": opened(metaspace(), "<s>", **llama),
        "Metaspace BPE without prefix": opened(metaspace(scheme="never"), **llama),
        "Metaspace by a normaliser": opened(prepended(), "<s>", **llama),
        "Unigram": opened(unigram(), "</s>", "", **llama),
        "two tokens before": opened(byte_level(), "[gMASK] <sop>", eos_token="<|endoftext|>"),
        "WordPiece": opened(word_piece(), "[CLS]", "[SEP]", eos_token="[SEP]", cls_token="[CLS]", unk_token="[UNK]"),
        "WordLevel": opened(word_level(), eos_token="<|endoftext|>", unk_token="<unk>"),
        "bytes, in Python": ByT5Tokenizer(),
    }


CHAT_TEMPLATE = "{% for m in messages %}<think>{{ m['content'] }}{% endfor %}"


def chat_kinds() -> dict[str, PreTrainedTokenizerBase]:
    """Tokenizers in the manner of four chat models."""
    chat_ml = opened(byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>")), eos_token="<|im_end|>")
    chat_ml.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    chat_ml.chat_template = CHAT_TEMPLATE + "</think>"
    names = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    llama_3 = opened(byte_level(), "<|begin_of_text|>", bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    llama_3.add_special_tokens({"additional_special_tokens": list(names)})
    turns = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    gemma = opened(
        metaspace(turns, "never"),
        "<bos>",
        bos_token="<bos>",
        eos_token="<end_of_turn>",
        unk_token="<unk>",
        pad_token="<pad>",
    )
    gemma.add_special_tokens({"additional_special_tokens": list(turns)})
    instructions = [AddedToken(name, special=True, lstrip=True, rstrip=True) for name in ("[INST]", "[/INST]")]
    mistral = opened(metaspace(), "<s>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    mistral.add_special_tokens({"additional_special_tokens": instructions})
    return {"ChatML": chat_ml, "Llama 3": llama_3, "Gemma": gemma, "Mistral": mistral}


def saved(tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    tokenizer.save_pretrained(folder)
    return folder
