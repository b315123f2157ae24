"""Tiny random models of several architectures, with the tokenizer of a few words."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

WORDS = ("<pad>", "<eos>", "<unk>", "a", "b", "c", "d")
SMALL = 8
"""Rows of the embedding: one more than there are words."""
_WIDTHS: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": SMALL}
_GATED = _WIDTHS | {"intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 32}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_GATED),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=SMALL, n_positions=32),
    "mixtral": MixtralConfig(**_GATED, num_local_experts=2),
    "gemma": GemmaConfig(**_GATED, head_dim=8),
    "opt": OPTConfig(**_WIDTHS, ffn_dim=32, word_embed_proj_dim=16, max_position_embeddings=32),
    "gpt_neox": GPTNeoXConfig(**_WIDTHS, intermediate_size=32, max_position_embeddings=32),
}


def make_checkpoint(kind: str, folder: Path) -> Path:
    torch.manual_seed(1)
    config = CONFIGS[kind]
    config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, 1, None
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_words().save_pretrained(folder)
    return folder


def make_words(**special: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
