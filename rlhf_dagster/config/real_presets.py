"""Named settings for pretrained models on one GPU, from published runs. Importing this imports no torch.

Sources (each constant names its own; where runs differ, the one with a model of this size is taken):

* N+: Huang et al. 2024 (arXiv 2403.17031), PPO on TL;DR with Pythia 1B and larger.
* IG: Ouyang et al. 2022, InstructGPT (arXiv 2203.02155), 1.3B.
* L2: Touvron et al. 2023, Llama 2 (arXiv 2307.09288), sections 3.2.2 and 3.3.
* T2, T3: Ivison et al. 2023, Tülu 2 (arXiv 2311.10702); Lambert et al. 2024, Tülu 3 (arXiv 2411.15124) and the commands
  in open-instruct, docs/tulu3.md.
* SMOL: alignment-handbook, recipes/smollm2/dpo/config_smol.yaml, for SmolLM2 135M and 360M.
* Z: alignment-handbook, recipes/zephyr-7b-beta, full weights and config_qlora.yaml (Tunstall et al. 2023).
* SL: TRL's StackLLaMA (Beeching et al. 2023), Llama 7B with adapters in 8 bits.
* TRL: the commands in TRL's examples/scripts/reward_modeling.py, with and without adapters.
* Q: Dettmers et al. 2023, QLoRA (arXiv 2305.14314), table 9, and scripts/finetune_guanaco_7b.sh.
* B: Biderman et al. 2024, LoRA Learns Less and Forgets Less (arXiv 2405.09673).
* DPO: Rafailov et al. 2023 (arXiv 2305.18290).

`accumulate` and sampling's `batch_size` change no number that is learned: they make a pass of a size that fits.
"""

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.schedule import ScheduleSettings
from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    LoraSettings,
    PpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
)

_CHAT_SAMPLING = SamplingSettings(
    temperature=1.0,  # IG, appendix C.4; T3, RLVR
    prompt_tokens=512,  # Z and SMOL, max_prompt_length; N+, queries
    response_tokens=511,  # Z and SMOL, max_length 1024; one place stays free for the token that ends a response
    fixed_length=False,
    batch_size=64,
)
_READ = 1024
"""Tokens of prompt, response and the token that ends it."""

SMALL: dict[str, Settings] = {
    "compute": ComputeSettings(precision="bf16"),  # Z, SMOL and T3 alike
    "sampling": _CHAT_SAMPLING,
    "sft": SftSettings(
        epochs=2.0,  # T2 and T3
        batch_size=32,  # IG, appendix C.1
        learning_rate=2e-5,  # T2, 7B; Z, full weights
        schedule=ScheduleSettings(warmup=0.03),  # T2 and T3: linear
        max_tokens=_READ,
        length_buckets=True,  # less padding, as Q's `group_by_length`
        accumulate=4,
    ),
    "reward_model": RewardModelSettings(
        epochs=1.0,  # L2, N+ and TRL: a second one overfits
        batch_size=8,  # TRL, on one GPU: a first round's few hundred labels are some dozens of steps
        learning_rate=1e-5,  # TRL, Qwen2 0.5B; L2, 7B
        schedule=ScheduleSettings(shape="cosine", warmup=0.03, final=0.1),  # L2: to a tenth, 3% of warm-up
        adam_epsilon=1e-5,  # N+
        max_tokens=_READ,
        accumulate=2,
    ),
    "ppo": PpoSettings(
        start="sft",  # IG, section 3.1
        updates=200,  # L2: 200 to 400 iterations
        batch_size=512,  # L2; N+
        minibatches=8,  # L2: minibatches of 64
        epochs=1,  # L2: one gradient step for a minibatch
        learning_rate=3e-6,  # N+, 1B
        adam_epsilon=1e-5,  # N+
        clip_range=0.2,  # L2; N+
        value_clip_range=0.2,  # N+
        value_coef=0.1,  # N+
        gae_lambda=0.95,  # N+
        whiten_rewards=False,  # N+
        kl_coef=0.05,  # N+
        kl_target=None,  # N+: fixed
        missing_end_penalty=-1.0,  # N+
        max_grad_norm=1.0,  # L2
        value="separate",  # N+: it begins as the reward model
        validate_every=20,  # L2 stops early by held-out prompts
        accumulate=8,
    ),
    "dpo": DpoSettings(
        beta=0.5,  # SMOL
        epochs=2.0,  # SMOL
        batch_size=64,  # DPO, appendix B
        learning_rate=1e-6,  # SMOL; DPO, appendix B
        schedule=ScheduleSettings(shape="cosine", warmup=0.1),  # SMOL
        accumulate=16,
    ),
}
"""All weights of a model of up to a billion parameters."""

_ADAPTERS = LoraSettings(
    rank=16,  # SL, PPO; Z, adapters. Q, figure 4: the rank matters little where all layers have adapters
    alpha=32.0,  # SL; B: twice the rank
    targets=None,  # Q, section 4: all linear layers
    merge=False,
)
"""The same in all stages, so that each goes on from the adapters of the one before it."""


def _with_adapters(lora: LoraSettings, drawn_at_once: int) -> dict[str, Settings]:
    return {
        "compute": ComputeSettings(precision="bf16", gradient_checkpointing=True),  # Q and Z alike
        "sampling": _CHAT_SAMPLING.changed(batch_size=drawn_at_once),
        "sft": SftSettings(
            epochs=2.0,  # T2 and T3
            batch_size=16,  # Q, 7B and 13B
            learning_rate=2e-4,  # Q, 7B and 13B; Z, adapters; B, instructions
            schedule=ScheduleSettings(shape="constant", warmup=0.03),  # Q
            max_tokens=_READ,
            length_buckets=True,  # Q: group_by_length
            accumulate=4,
            lora=lora,
        ),
        "reward_model": RewardModelSettings(
            epochs=1.0,  # L2; TRL
            batch_size=8,  # TRL, on one GPU
            learning_rate=1e-4,  # TRL, adapters: ten times the rate of all weights, as in B
            schedule=ScheduleSettings(shape="cosine", warmup=0.03, final=0.1),  # L2
            adam_epsilon=1e-5,  # N+
            max_tokens=_READ,
            accumulate=4,
            lora=lora,
        ),
        "ppo": PpoSettings(
            start="sft",  # IG, section 3.1
            updates=400,  # L2: 200 to 400 iterations
            batch_size=64,  # SL: 8 episodes on each of 8 GPUs
            minibatches=1,  # SL
            epochs=4,  # SL
            learning_rate=1.4e-5,  # SL
            adam_epsilon=1e-5,  # N+
            clip_range=0.2,  # L2; N+
            value_clip_range=0.2,  # N+
            value_coef=0.1,  # N+
            gae_lambda=0.95,  # N+
            whiten_rewards=False,  # N+
            kl_coef=0.2,  # SL, init_kl_coef
            kl_target=6.0,  # SL: TRL's default, that of Ziegler et al. 2019
            kl_horizon=10_000,  # SL: as before
            missing_end_penalty=-1.0,  # N+
            max_grad_norm=1.0,  # L2
            value="separate",  # N+; on the one base it costs adapters and a head
            validate_every=20,  # L2 stops early by held-out prompts
            accumulate=16,
            lora=lora,
        ),
        "dpo": DpoSettings(
            beta=0.1,  # DPO, appendix B; T2
            epochs=1.0,  # Z, adapters
            batch_size=64,  # DPO, appendix B
            learning_rate=5e-6,  # Z, adapters: ten times T2's 5e-7 for all weights
            schedule=ScheduleSettings(shape="cosine", warmup=0.1),  # Z
            accumulate=32,
            lora=lora,
        ),
    }


LORA = _with_adapters(_ADAPTERS, 64)
"""Adapters on one base of 1 to 14 billion parameters, which policy, reference, reward model and value share."""

QLORA = _with_adapters(_ADAPTERS.changed(base_bits=4), 16)  # Q: NF4 with double quantisation
"""The same on a base of 4 bits, with the extra `quantised`: for a card of 24 GB, or a larger model."""
