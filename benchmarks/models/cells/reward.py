"""Reward models: two heads on the trunk, all weights or adapters trained."""

import torch

from benchmarks.models.inputs import COMPUTE, LONGEST, SAMPLING
from benchmarks.models.plain import PlainScores
from benchmarks.models.trial import Trial, require_close
from rlhf_dagster.config.training import LoraSettings, RewardModelSettings
from rlhf_dagster.training.reward.scores import score_responses
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.specs import RewardModelSpec

REWARD = RewardModelSettings(
    epochs=1, batch_size=8, learning_rate=1e-2, max_tokens=LONGEST, normalisation_samples=8, heads=2
)


def reward_model(trial: Trial) -> None:
    """Scores of rows of unequal lengths, as transformers computes them row by row."""
    _train(trial, "reward", REWARD)


def adapted_reward_model(trial: Trial) -> None:
    """Adapters and heads, merged at the end."""
    _train(trial, "adapted_reward", REWARD.changed(lora=LoraSettings(rank=2)))


def _train(trial: Trial, name: str, settings: RewardModelSettings) -> None:
    spec = RewardModelSpec(
        trial.base,
        trial.inputs.preferences,
        trial.inputs.prompts,
        trial.new(name),
        settings,
        SAMPLING,
        seed=2,
        compute=COMPUTE,
    )
    result, inputs = train_reward_model(spec), trial.inputs
    require_close("scale of scores", [result.metrics["reference_mean"], result.metrics["reference_std"]], [0, 1], 0.1)
    scores = score_responses(spec.output, inputs.texts, inputs.answers, SAMPLING, COMPUTE)
    plain = PlainScores(spec.output)
    require_close("scores", torch.from_numpy(scores), [plain.score(prompt + answer) for prompt, answer in trial.rows])
