"""Models of 7 billion parameters as their published configs describe them, and a loop's stages on them."""

from pathlib import Path
from typing import Any

from transformers import LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config

from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    LoraSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
)
from rlhf_dagster.training.specs import DpoSpec, PpoSpec, RewardModelSpec, SftSpec, Spec

WIDE: dict[str, Any] = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
CONFIGS: dict[str, PretrainedConfig] = {
    "Llama-2-7B": LlamaConfig(
        intermediate_size=11008, num_key_value_heads=32, vocab_size=32_000, max_position_embeddings=4096, **WIDE
    ),
    "Mistral-7B": MistralConfig(
        intermediate_size=14336, num_key_value_heads=8, vocab_size=32_000, max_position_embeddings=32_768, **WIDE
    ),
    "Qwen2.5-7B": Qwen2Config(
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18_944,
        vocab_size=152_064,
        max_position_embeddings=131_072,
        tie_word_embeddings=False,
    ),
}
PARAMETERS = {"Llama-2-7B": 6_738_415_616, "Mistral-7B": 7_241_732_096, "Qwen2.5-7B": 7_615_616_512}
"""As published on the models' pages."""
ROWS, PROMPT, RESPONSE = 16, 512, 512
COMPUTE = ComputeSettings(device="cuda", precision="bf16", gradient_checkpointing=True)
NONE = Path("no-table-yet")


def stages(model: Path, lora: LoraSettings, compute: ComputeSettings = COMPUTE) -> dict[str, Spec]:
    """All stages on 16 rows of 512 + 512 tokens; a comparison has two rows."""
    sampling = SamplingSettings(prompt_tokens=PROMPT, response_tokens=RESPONSE, batch_size=ROWS)
    own: dict[str, Any] = {"output": NONE, "sampling": sampling, "compute": compute}
    rewards = RewardModelSettings(
        batch_size=ROWS // 2, max_tokens=PROMPT + RESPONSE, normalisation_samples=ROWS, lora=lora
    )
    ppo = PpoSettings(batch_size=ROWS, minibatches=1, value="separate", lora=lora)
    sft = SftSettings(batch_size=ROWS, max_tokens=PROMPT + RESPONSE, lora=lora)
    return {
        "SFT": SftSpec(model, NONE, settings=sft, **own),
        "reward model": RewardModelSpec(model, NONE, NONE, settings=rewards, **own),
        "PPO": PpoSpec(model, model, model, NONE, None, settings=ppo, **own),
        "DPO": DpoSpec(model, NONE, settings=DpoSettings(batch_size=ROWS // 2, lora=lora), **own),
    }
