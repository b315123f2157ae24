"""Which tiny models there are: one of each architecture, some in several variants, and why the rest is missing."""

from dataclasses import dataclass, field
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

HYBRID = ["linear_attention", "full_attention"]
ROPE = {"rope_theta": 10_000.0}
PROPORTIONAL = ROPE | {"rope_type": "default", "partial_rotary_factor": 0.5}
DYNAMIC = ROPE | {"rope_type": "dynamic", "factor": 4.0}
LONGROPE = ROPE | {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [1.5, 2.0, 4.0, 8.0]}
DECODER = {"is_decoder": True}
LOUD = {"logit_scale": 1.0}
NARROW_HEADS, WIDE_HEADS = {"head_dim": 8}, {"global_head_dim": 16}
PRETRAINED, SHORT = ({"original_max_position_embeddings": limit} for limit in (48, 8))
"""Contexts behind which another rotary embedding begins: longer than the rows of the matrix, and shorter."""


@dataclass(frozen=True)
class TinyModel:
    """One model of the zoo: an architecture, and what differs from its default configuration made small."""

    name: str
    model_type: str
    changes: dict[str, Any] = field(default_factory=dict)


CHANGES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"), DECODER),
    **dict.fromkeys(("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer"), DECODER),
    **dict.fromkeys(("xlm-roberta", "xlm-roberta-xl"), DECODER),
    **dict.fromkeys(("cohere", "cohere2", "cohere2_moe"), LOUD),
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text"), WIDE_HEADS),
    **dict.fromkeys(("hunyuan_v1_dense", "hunyuan_v1_moe", "ministral"), NARROW_HEADS),
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), PROPORTIONAL),
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note_text": {"per_layer_config": {}, "head_dim": 16},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
        "intermediate_size": [48] * 4,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "intermediate_size": 48},
    "granitemoehybrid": {"layer_types": HYBRID},
    "hrm_text": {"num_layers_per_stack": None, "num_hidden_layers": 1, "L_cycles": 2},
    "inkling_text": {"logits_mup_width_multiplier": 1.0},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "modernbert-decoder": {"cls_token_id": 1},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen4_exp_text": {
        **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 4},
        **{"indexer_compress_ratio": 2, "ple_layer_ids": [1], "ple_embed_dim": 32, "heads_per_ngram": 2},
        **{"ngram_vocab_size_base": 50, "split_ngram_parts": 1, "make_ngram_vocab_size_divisible_by": 1},
    },
    "reformer": {
        **DECODER,
        **{"attn_layers": ["local", "lsh"], "axial_pos_embds": False, "num_buckets": 4},
        **{"local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "hash_seed": 0},
    },
    # Deep models have their states halved every few layers, which must not change what they say.
    "rwkv": {"rescale_every": 1},
    "xlm": {"causal": True},
    "xlstm": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0, "ffn_round_up_to_multiple_of": 8},
    "xmod": {"default_language": "en_XX"} | DECODER,
    "zamba": {
        **{"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
        **{"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
    },
    "zamba2": {
        **{"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
        **{"num_key_value_heads": 4, "kv_channels": 8, "num_query_groups": 4, "use_shared_attention_adapter": True},
        **{"attention_hidden_size": 64, "attention_head_dim": 16},
    },
    "zaya": {"num_experts_per_tok": 1},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-bidirectional": ("bert", {}),
    "roberta-bidirectional": ("roberta", {}),
    "electra-bidirectional": ("electra", {}),
    "xlm-bidirectional": ("xlm", {}),
    "gemma3_text-bidirectional": ("gemma3_text", {"use_bidirectional_attention": True}),
    "deepseek_v32-sparse": ("deepseek_v32", {"index_topk": 4}),
    "doge-sparse": ("doge", {"keep_window_size": 4}),
    "falcon-alibi": ("falcon", {"alibi": True}),
    "falcon-grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False}),
    "gpt_bigcode-many-keys": ("gpt_bigcode", {"multi_query": False}),
    "gpt_neox-sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-linear": ("llama", {"rope_parameters": ROPE | {"rope_type": "linear", "factor": 2.0}}),
    "llama-dynamic": ("llama", {"rope_parameters": DYNAMIC | PRETRAINED}),
    "llama-dynamic-short": ("llama", {"rope_parameters": DYNAMIC | SHORT}),
    "llama-yarn": ("llama", {"rope_parameters": ROPE | SHORT | {"rope_type": "yarn", "factor": 8.0}}),
    "mistral-full": ("mistral", {"sliding_window": None}),
    "mixtral-jitter": ("mixtral", {"router_jitter_noise": 0.1}),
    "opt-350m": ("opt", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "phi-qk-norm": ("phi", {"qk_layernorm": True}),
    "phi3-longrope": ("phi3", PRETRAINED | {"rope_parameters": LONGROPE | PRETRAINED}),
    "phi3-longrope-short": ("phi3", SHORT | {"rope_parameters": LONGROPE | SHORT}),
    "phimoe-jitter": ("phimoe", {"router_jitter_noise": 0.1, "input_jitter_noise": 0.1}),
    "qwen2-sliding": (
        "qwen2",
        {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"], "max_window_layers": 1},
    ),
    "qwen3_moe-tied": ("qwen3_moe", {"tie_word_embeddings": True}),
    "stablelm-parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
}
PART = "reads pictures or sound too; what it does with text is tried as {}"
ASSISTANT = "drafts for another model, whose states it reads; alone it is no language model"
CODES = "writes several codebooks of sound at once, not text"
NOT_MADE: dict[str, str] = {
    "blt": "reads bytes in patches that a second model cuts; its hash tables cannot be made small",
    "dots3_note": PART.format("dots3_note_text"),
    "emu3": PART.format("llama, whose layers it has"),
    "fuyu": PART.format("persimmon"),
    "gemma3": PART.format("gemma3_text"),
    "gemma3n": PART.format("gemma3n_text"),
    "gemma4": PART.format("gemma4_text"),
    "gemma4_assistant": ASSISTANT,
    "gemma4_unified": PART.format("gemma4_unified_text"),
    "gemma4_unified_assistant": ASSISTANT,
    "git": "describes pictures: its decoder always begins with one",
    "got_ocr2": PART.format("qwen2"),
    "llama4": PART.format("llama4_text"),
    "mllama": PART.format("llama, whose layers it has beside those that read pictures"),
    "moshi": "speaks and listens at once: its decoder needs both streams of sound",
    "moss_transcribe_diarize": PART.format("qwen3"),
    "musicgen": CODES,
    "musicgen_melody": CODES,
    "phi4_multimodal": PART.format("phi3"),
    "qwen3_5": PART.format("qwen3_5_text"),
    "qwen3_5_moe": PART.format("qwen3_5_moe_text"),
    "qwen4_exp": PART.format("qwen4_exp_text"),
}


def _zoo() -> dict[str, TinyModel]:
    made = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in NOT_MADE]
    models = [TinyModel(name, name, CHANGES.get(name, {})) for name in made]
    models += [TinyModel(name, *variant) for name, variant in VARIANTS.items()]
    return {model.name: model for model in sorted(models, key=lambda model: model.name)}


ZOO = _zoo()
"""All tiny models by name."""
