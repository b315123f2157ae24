"""A configuration of any architecture of transformers, made small: few layers of each kind, narrow, few experts."""

from collections.abc import Iterable
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY = 64
CONTEXT = 64

WIDTHS: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim_model_base", "lru_width"), 32),
    **dict.fromkeys(
        ("word_embed_proj_dim", "attention_hidden_size", "embedding_dim", "cross_attention_hidden_size"), 32
    ),
    **dict.fromkeys(("embedding_size", "input_embedding_size", "output_embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "dff", "dim_ff"), 48),
    **dict.fromkeys(("feed_forward_size", "ffn_hidden_size", "dense_intermediate_size", "d_inner"), 48),
    **dict.fromkeys(("intermediate_size_mlp", "prefix_dense_intermediate_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24),
    **dict.fromkeys(("shared_intermediate_size", "moe_shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("shared_experts_intermediate_size", "router_hidden_size"), 24),
    **dict.fromkeys(("head_dim", "d_head", "dim_head", "attention_head_size", "kv_channels", "attention_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "swa_head_dim", "linear_head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "index_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "o_lora_rank", "laurel_rank", "gated_norm_rank"), 8),
    **dict.fromkeys(("hidden_size_per_layer_input", "hc_lowrank", "d_rel", "ple_embed_dim"), 8),
    **dict.fromkeys(("pronunciation_embed_dim", "shape_embed_dim", "adapter_rank", "time_step_rank"), 8),
    "qk_head_dim": 16,
}
COUNTS: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "num_blocks", "num_layers_per_stack"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "swa_num_key_value_heads", "num_kv_heads", "num_query_groups"), 2),
    **dict.fromkeys(("index_n_heads", "linear_num_heads", "linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "n_groups", "zero_expert_num"), 1),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers"), 1),
    "num_nextn_predict_layers": 0,
}
STATES: dict[str, int] = {
    **dict.fromkeys(("state_size", "ssm_state_size", "mamba_d_state"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 4),
    "mamba_d_ssm": 64,
    "mamba_dt_rank": 4,
}
LIMITS: dict[str, int] = {
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), CONTEXT),
    # Sparse attention, which of shorter texts sees everything.
    **dict.fromkeys(("index_topk", "keep_window_size"), CONTEXT),
    **dict.fromkeys(("max_target_positions", "max_source_positions", "model_max_length"), CONTEXT),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size", "local_attention"), 4),
    **dict.fromkeys(("attention_window_size", "attention_chunk_size"), 4),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("pronunciation_vocab_size", "shape_vocab_size"), VOCABULARY),
}
SMALL = WIDTHS | COUNTS | STATES | LIMITS
PER_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types", "indexer_types")
"""Settings that name the kind of each layer."""
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "decoder_start_token_id": 1, "sep_token_id": 2}
FOREIGN_TOKENS = ("forced_eos_token_id", "cls_token_id", "mask_token_id", "eod_token_id", "begin_suppress_tokens")


def small_config(model_type: str, **changes: Any) -> PretrainedConfig:
    """The default configuration of ``model_type`` made small, with ``changes``."""
    kind = CONFIG_MAPPING[model_type]
    return kind(**_shrunk(kind().to_dict()) | changes)


def _shrunk(default: dict[str, Any]) -> dict[str, Any]:
    """The settings to change, of those in ``default``."""
    # A setting that is 0 or None switches something off.
    settings: dict[str, Any] = {name: small for name, small in SMALL.items() if default.get(name)}
    settings |= {name: token for name, token in TOKENS.items() if name in default}
    settings |= {name: None for name in FOREIGN_TOKENS if name in default}
    # Latent attention gives every head keys of its own.
    settings |= {"num_key_value_heads": 4} if default.get("kv_lora_rank") else {}
    layers = _few_layers(default)
    if layers:
        settings |= {name: [default[name][layer] for layer in layers] for name in PER_LAYER if default.get(name)}
        settings |= {name: len(layers) for name in ("num_hidden_layers", "n_layer") if name in default}
    if default.get("rope_parameters"):
        settings["rope_parameters"] = _few_positions(default["rope_parameters"])
    return settings


def _few_layers(default: dict[str, Any]) -> list[int]:
    """Numbers of layers that are of different kinds, in their order, but at least two."""
    kinds: list[Iterable[str]] = [default[name] for name in PER_LAYER if default.get(name)]
    if not kinds:
        return []
    rows = list(zip(*kinds, strict=False))
    first = [rows.index(row) for row in dict.fromkeys(rows)]
    return first if len(first) > 1 else [*first, first[0] + 1]


def _few_positions(rope: dict[str, Any]) -> dict[str, Any]:
    """The same rotary embedding for a context of `CONTEXT` tokens."""
    if any(isinstance(value, dict) or value is None for value in rope.values()):
        return {name: value if value is None else _few_positions(value) for name, value in rope.items()}
    limits = {"original_max_position_embeddings": CONTEXT // 2, "max_position_embeddings": CONTEXT}
    return rope | {name: limit for name, limit in limits.items() if name in rope}
