"""Tiny random models of architectures that hold, share or name their weights in ways of their own."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
HEADS = {"head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
MAMBA = {"mamba_d_state": 8, "mamba_d_conv": 2, "mamba_expand": 2}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 16, "do_layer_norm_before": True}),
    "llama": ("llama", {"tie_word_embeddings": False}),
    "gemma": ("gemma", HEADS | {"tie_word_embeddings": True}),
    "gpt_neox": ("gpt_neox", {"tie_word_embeddings": False}),
    "mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.3}),
    "qwen3_moe": ("qwen3_moe", HEADS | EXPERTS | {"num_experts": 4, "decoder_sparse_step": 1}),
    "olmoe": ("olmoe", {"num_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": ("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": (
        "deepseek_v3",
        LATENT | EXPERTS | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "jamba": (
        "jamba",
        MAMBA
        | {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
        | {"expert_layer_period": 2, "expert_layer_offset": 1, "mamba_dt_rank": 4},
    ),
    "nemotron_h": (
        "nemotron_h",
        HEADS
        | {"layers_block_type": ["mamba", "moe", "attention"], "num_hidden_layers": 3, "n_routed_experts": 4}
        | {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 2, "chunk_size": 8}
        | {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "moe_shared_expert_intermediate_size": 16},
    ),
}
TWELVE = tuple(CONFIGS)
CONFIGS |= {
    "zamba": (
        "zamba",
        {"layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "num_hidden_layers": 4, "num_key_value_heads": 4}
        | {"mamba_d_state": 8, "mamba_d_conv": 2, "mamba_dt_rank": 4, "n_mamba_heads": 2, "attention_head_dim": 16},
    ),
}


def tiny(name: str, vocab: int = 40, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of random weights, large enough that its logits tell tokens apart."""
    kind, settings = CONFIGS.get(name, (name, {}))
    special = {"vocab_size": vocab, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    shape = {} if kind == "gpt2" else SHAPE
    config = AutoConfig.for_model(kind, **shape | settings | special | changes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    return model.eval()


def save_tiny(name: str, tokenizer: PreTrainedTokenizerBase, folder: Path, **changes: Any) -> Path:
    """A checkpoint of :func:`tiny` with this tokenizer."""
    model = tiny(name, len(tokenizer), **changes)
    model.config.pad_token_id, model.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
