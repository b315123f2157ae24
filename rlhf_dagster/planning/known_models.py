"""Models by the size in their names, as their authors published them."""

from typing import Any

from rlhf_dagster.errors import UserError

_LLAMA_3 = {"vocab_size": 128_256, "max_position_embeddings": 131_072}
_LLAMA_2 = {"vocab_size": 32_000, "max_position_embeddings": 4096}


def _llama(width: int, inner: int, layers: int, heads: int, shared_heads: int, **others: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared_heads,
        "tie_word_embeddings": False,
        **others,
    }


SIZES: dict[str, dict[str, Any]] = {
    "1B": _llama(2048, 8192, 16, 32, 8, **_LLAMA_3, head_dim=64) | {"tie_word_embeddings": True},
    "3B": _llama(3072, 8192, 28, 24, 8, **_LLAMA_3, head_dim=128) | {"tie_word_embeddings": True},
    "7B": _llama(4096, 11_008, 32, 32, 32, **_LLAMA_2),
    "8B": _llama(4096, 14_336, 32, 32, 8, **_LLAMA_3),
    "13B": _llama(5120, 13_824, 40, 40, 40, **_LLAMA_2),
    "70B": _llama(8192, 28_672, 80, 64, 8, **_LLAMA_3),
    "405B": _llama(16_384, 53_248, 126, 128, 8, **_LLAMA_3),
}
"""Settings of transformers' LlamaConfig: Llama 2 (7B, 13B; Touvron et al. 2023), Llama 3.1 (8B, 70B, 405B; Grattafiori
et al. 2024, table 3) and Llama 3.2 (1B, 3B; its model cards)."""


def shape_settings(size: str) -> dict[str, Any]:
    """The settings of the model of a size such as `70B`; raises UserError with all sizes where there is none."""
    known = SIZES.get(size.upper())
    if known is None:
        raise UserError(
            f"{size} is neither a size that is known here ({', '.join(SIZES)}), nor a folder, nor a name on the Hub as "
            "ORG/NAME."
        )
    return known
