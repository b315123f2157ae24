"""Named settings: of the papers here, for pretrained models on one GPU in
:mod:`~rlhf_dagster.config.real_presets`. Each constant names its source; importing this imports no torch.

Sources:

* LMHP: github.com/openai/lm-human-preferences, the code of Ziegler et al. 2019 (arXiv 1909.08593).
* N: github.com/vwxyzjn/lm-human-preference-details, its PyTorch replication.
* N+: Huang et al. 2024 (arXiv 2403.17031), the replication of Stiennon et al. 2020.
* IG: Ouyang et al. 2022, InstructGPT (arXiv 2203.02155).
* DPO: Rafailov et al. 2023 (arXiv 2305.18290), for both papers' models, which are older.
"""

from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.real_presets import LORA, QLORA, SMALL
from rlhf_dagster.config.schedule import ScheduleSettings
from rlhf_dagster.config.training import DpoSettings, PpoSettings, RewardModelSettings, SamplingSettings, SftSettings

TINY: dict[str, Settings] = {
    "sampling": SamplingSettings(),
    "sft": SftSettings(),
    "reward_model": RewardModelSettings(),
    "ppo": PpoSettings(),
    "dpo": DpoSettings(),
}
"""The defaults: for models of a million parameters on two CPU cores."""

ZIEGLER_2019: dict[str, Settings] = {
    "sampling": SamplingSettings(
        temperature=0.7,  # LMHP launch.py, books tasks
        prompt_tokens=64,  # LMHP launch.py, query_length
        response_tokens=24,  # LMHP launch.py, response_length
        fixed_length=True,  # LMHP policy.py samples exactly response_length tokens; N, GenerationConfig
    ),
    # The paper's style tasks start from the language model as it is; these are N+'s supervised settings.
    "sft": SftSettings(
        epochs=1.0,  # N+, SFT
        batch_size=512,  # N+, SFT
        learning_rate=3e-6,  # N+, one rate for SFT, reward model and PPO
        max_tokens=88,  # query_length + response_length
    ),
    "reward_model": RewardModelSettings(
        epochs=1.0,  # LMHP train_reward.py: every label once
        batch_size=32,  # LMHP launch.py
        learning_rate=5e-5,  # LMHP launch.py, books tasks
        adam_epsilon=1e-5,  # N: what makes PyTorch's Adam behave like TensorFlow's default in LMHP
        max_tokens=88,  # query_length + response_length
        normalisation_samples=256,  # LMHP train_reward.py, normalize_samples
    ),
    "ppo": PpoSettings(
        start="behaviour",  # paper, section 2.3: online data collection goes on training the policy
        updates=1953,  # 1M episodes (LMHP launch.py) in batches of 512
        batch_size=512,  # LMHP launch.py, books tasks
        minibatches=1,  # LMHP train_policy.py, nminibatches
        epochs=4,  # LMHP train_policy.py, noptepochs
        learning_rate=1e-5,  # LMHP launch.py, books tasks
        adam_epsilon=1e-5,  # N
        clip_range=0.2,  # LMHP train_policy.py, cliprange
        value_clip_range=0.2,  # LMHP train_policy.py, cliprange_value
        value_coef=0.1,  # LMHP train_policy.py, vf_coef
        gamma=1.0,  # LMHP train_policy.py
        gae_lambda=0.95,  # LMHP train_policy.py, lam
        whiten_rewards=True,  # LMHP train_policy.py
        kl_coef=0.15,  # LMHP launch.py, books tasks, init_kl_coef
        kl_target=6.0,  # LMHP launch.py, books tasks, adaptive_kl.target
        kl_horizon=10_000,  # LMHP train_policy.py, adaptive_kl.horizon
        truncate_token=".",  # noqa: S106  # LMHP launch.py, books tasks: token 13
        truncate_after=16,  # LMHP launch.py, books tasks
        truncated_rest="trained",  # LMHP train_policy.py trains on whole responses and scores truncated ones
        missing_end_penalty=-1.0,  # LMHP launch.py, penalty_reward_value
    ),
}
"""Stylistic continuation with GPT-2 774M (Ziegler et al. 2019, section 3.1)."""

INSTRUCT_GPT: dict[str, Settings] = {
    "sampling": SamplingSettings(
        temperature=1.0,  # IG, appendix C.4
        prompt_tokens=1024,  # IG, appendix C: prompts of at most 1k tokens
        response_tokens=1023,  # IG, appendix C: at most 1k tokens; one place stays free for the end-of-text token
        fixed_length=False,  # IG: instructions are answered until the end-of-text token
        batch_size=64,
    ),
    "sft": SftSettings(
        epochs=16.0,  # IG, section 3.5
        batch_size=32,  # IG, appendix C.1
        learning_rate=9.65e-6,  # IG, appendix C.1, 1.3B and 6B
        schedule=ScheduleSettings(shape="cosine", final=0.1),  # IG, appendix C.1: to 10%, without a warm-up
        max_tokens=2048,  # IG, appendix C: context of 2k tokens
    ),
    "reward_model": RewardModelSettings(
        epochs=1.0,  # IG, section 3.5 and appendix C.2: more overfits
        batch_size=64,  # IG, appendix C.2: prompts in a batch, all responses of a prompt together
        learning_rate=9e-6,  # IG, appendix C.2
        schedule=ScheduleSettings(shape="cosine", final=0.1),  # IG, appendix C.2: to 10%
        adam_epsilon=1e-5,  # N+, reward model
        max_tokens=2048,  # IG, appendix C
        normalisation="demonstrations",  # IG, section 3.5: a bias alone, so that demonstrations have mean 0
        normalisation_samples=1024,  # ours: the mean of the scores is then known to 1/32 of their deviation
        ranking="pairs",  # IG, equation 1: all K(K-1)/2 comparisons of a prompt, in one batch element
    ),
    "ppo": PpoSettings(
        start="sft",  # IG, section 3.1: policies are initialised from supervised fine-tuning
        updates=500,  # 256k episodes (IG, appendix C.4) in batches of 512
        batch_size=512,  # IG, appendix C.4
        minibatches=8,  # IG, appendix C.4: minibatches of 64
        epochs=1,  # IG, appendix C.4: a single inner epoch
        # IG prints no rate of the released policies, only the sweep: 2.55e-6 to 2.55e-5 (appendix E.9).
        learning_rate=9.65e-6,  # as IG, appendix C.1
        schedule=ScheduleSettings(shape="constant", warmup=10),  # IG, appendix C.4: from a tenth, over 10 iterations
        adam_epsilon=1e-5,  # N+, PPO
        clip_range=0.2,  # IG, appendix C.4
        value_clip_range=0.2,  # IG, appendix C.4
        value_coef=0.1,  # N+, vf_coef
        gamma=1.0,  # IG, appendix C.4: no discount
        gae_lambda=0.95,  # N+, lam
        whiten_rewards=False,  # N+
        kl_coef=0.02,  # IG, appendix C.4
        kl_target=None,  # IG: a fixed coefficient
        pretraining_coef=27.8,  # IG, appendix C.4, gamma of PPO-ptx
        pretraining_examples=8,  # IG, appendix C.4: 8 times as many as episodes
        ema_decay=0.992,  # IG, appendix C.4
        value="separate",  # IG, appendix C.4: the value function is initialised from the reward model
    ),
}
"""PPO-ptx of InstructGPT 1.3B. Not reproduced: Adam's second decay of 0.95 (here 0.999), residual dropout of 0.2 in
SFT, an SFT of its own for PPO to start from (2 epochs, a tenth of them pretraining text), and the value model's own
learning rate of 9e-6."""

for _preset in (ZIEGLER_2019, INSTRUCT_GPT):
    _preset["dpo"] = DpoSettings(
        beta=0.1,  # DPO, appendix B
        epochs=1.0,  # DPO's released code, config.yaml: n_epochs
        batch_size=64,  # DPO, appendix B
        learning_rate=1e-6,  # DPO, appendix B, there with RMSprop
        # DPO's released code: 150 steps of warm-up, then constant. The share is that of one epoch of HH, 2,500 batches.
        schedule=ScheduleSettings(shape="constant", warmup=0.06),
    )

PRESETS: dict[str, dict[str, Settings]] = {
    "tiny": TINY,
    "small": SMALL,
    "lora": LORA,
    "qlora": QLORA,
    "ziegler2019": ZIEGLER_2019,
    "instructgpt": INSTRUCT_GPT,
}
