"""Proximal policy optimisation, with each kind of values and of what is trained."""

import torch
from torch import Tensor

from benchmarks.models.inputs import COMPUTE, SAMPLING
from benchmarks.models.plain import Plain, PlainScores, tensors_of
from benchmarks.models.trial import Trial, WrongNumberError, require_close
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import load_model, load_policy
from rlhf_dagster.training.ppo.policy import (
    VALUE_HEAD_FILE,
    VALUE_MODEL_FOLDER,
    PolicyWithValue,
    load_value_head,
    response_values,
)
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.scorers.sequence_scorer import AutoSequenceScorer
from rlhf_dagster.training.specs import PpoSpec, TrainingResult
from rlhf_dagster.training.texts.tokens import PaddedBatch, pad

PPO = PpoSettings(updates=2, batch_size=8, minibatches=2, epochs=1, learning_rate=1e-3)
IN_BF16 = 0.1
"""Nats, mean of |log ratio| over tokens. A single token may be further off: where rounding sends it to another expert,
experts with random weights say something else altogether."""
REWARD = '''def reward(prompts, responses):
    """Long answers with many an `a`."""
    return [len(response) / 10 + response.count("a") for response in responses]
'''


def shared_ppo(trial: Trial) -> None:
    """A value head on the policy's trunk."""
    folder = _train(trial, "ppo", PPO).folder
    opened = load_policy(folder, COMPUTE)
    policy = PolicyWithValue(opened.model)
    load_value_head(policy, folder)
    ids, mask, width = _batch(trial)
    read, tokens, real = PaddedBatch(ids, mask), ids[:, -width:], mask[:, -width:]
    with torch.no_grad():
        _, values = policy(read, tokens, real, decoding_of(opened.tokenizer, SAMPLING))
    plain, head = Plain(folder), folder / VALUE_HEAD_FILE
    _require_values(values, [plain.values(prompt, answer, head) for prompt, answer in trial.rows])


def separate_ppo(trial: Trial) -> None:
    """A value model of its own, which begins as the reward model."""
    folder = _train(trial, "separate", PPO.changed(value="separate"), by_model=True).folder / VALUE_MODEL_FOLDER
    ids, mask, width = _batch(trial)
    value_model = load_model(AutoSequenceScorer, folder).eval()
    with torch.no_grad():
        values = response_values(value_model, PaddedBatch(ids, mask), width)
    plain = PlainScores(folder, trial.base)
    _require_values(values, [plain.scores(prompt, answer) for prompt, answer in trial.rows])


def frozen_ppo(trial: Trial) -> None:
    """The lowest layer is not trained, the last one is."""
    folder = _train(trial, "frozen", PPO.changed(frozen_layers=1)).folder
    before, after = tensors_of(trial.base), tensors_of(folder)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    if not moved or len(moved) == len(before):
        raise WrongNumberError(f"frozen: {len(moved)} of {len(before)} tensors were trained")


def adapted_ppo(trial: Trial) -> None:
    """Adapters, which are switched off for the reference."""
    _train(trial, "adapted_ppo", PPO.changed(lora=LoraSettings(rank=2)))


def bf16_ppo(trial: Trial) -> None:
    """Matrices multiplied in bfloat16: the ratio is near 1, and no alarm says otherwise."""
    spec = _spec(trial, "bf16", PPO)
    result = train_ppo(PpoSpec(**vars(spec) | {"compute": COMPUTE.changed(precision="bf16")}))
    require_close("first ratio", result.curves["log_ratio_first"], [0.0] * PPO.updates, by=IN_BF16)
    alarms = [text for text in result.warnings if "first step" in text and "at one token" not in text]
    if alarms:
        raise WrongNumberError(f"false alarm: {alarms[0]}")


def _train(trial: Trial, name: str, settings: PpoSettings, by_model: bool = False) -> TrainingResult:
    result = train_ppo(_spec(trial, name, settings, by_model))
    require_close("first ratio", result.curves["ratio_first"], [1.0] * settings.updates)
    require_close("first KL", result.curves["kl"][:1], [0.0])
    if result.curves["kl"][1] == 0:
        raise WrongNumberError("KL: an update changed nothing")
    return result


def _spec(trial: Trial, name: str, settings: PpoSettings, by_model: bool = False) -> PpoSpec:
    function = trial.new("reward.py")
    function.write_text(REWARD, encoding="utf-8")
    return PpoSpec(
        trial.base,
        trial.base,
        trial.made("reward") if by_model else None,
        trial.inputs.prompts,
        None,
        trial.new(name),
        settings,
        SAMPLING,
        seed=4,
        compute=COMPUTE,
        reward_function=None if by_model else f"{function}:reward",
    )


def _batch(trial: Trial) -> tuple[Tensor, Tensor, int]:
    """Ids and mask, with prompts padded on the left and responses on the right, and the width of the responses."""
    pad_id, (prompts, answers) = trial.plain.tokenizer.pad_token_id, zip(*trial.rows, strict=True)
    left, right = pad(prompts, pad_id, "left"), pad(answers, pad_id, "right")
    ids, mask = (torch.cat(parts, dim=1) for parts in zip(left, right, strict=True))
    return ids, mask, right.input_ids.shape[1]


def _require_values(values: Tensor, expected: list[list[float]]) -> None:
    ours = [number for row, plain in zip(values.tolist(), expected, strict=True) for number in row[: len(plain)]]
    require_close("values", ours, [number for row in expected for number in row])
