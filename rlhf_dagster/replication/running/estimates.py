"""Seconds that the assets and probes of a variant take on one core of the machine on which they were measured.

The table is of two rounds of `rlhf demo` on the sentiment task. Its units are tokens that are trained on, sampled and
read; other models take as many seconds as their weights ask for. An estimate is to be right to a factor of two.
"""

from collections.abc import Callable, Mapping
from typing import Any

from rlhf_dagster.config.arm_settings.best_of_n_sft import BestOfNSftSettings
from rlhf_dagster.config.arms import TRAINED
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import DpoSettings, PpoSettings
from rlhf_dagster.evaluation.perplexity import DOCUMENTS
from rlhf_dagster.replication.base import Probe

_TRAINED_TOKEN, _SAMPLED_TOKEN, _READ_TOKEN = 60e-6, 75e-6, 20e-6
"""Seconds for a token, of a model of :data:`MEASURED_PARAMETERS`."""
MEASURED_PARAMETERS = 460_000
_FIXED = 0.25
"""Share of these seconds that no smaller model saves."""
_EVERY_ASSET = 0.4
"""Seconds of any asset, whatever it makes: reading, writing, records."""
_JUDGED = 3e-3
"""Seconds for a comparison that is judged by simulated annotators and written down."""
_TASK_TEXT = 2e-4
"""Seconds for a text of a task that is made and written down."""
_VOCABULARY = 300
"""Tokens of a task's language, where `vocabulary` allows more."""


def asset_seconds(asset: str, config: LoopConfig, number: int) -> float:
    """Of an asset of the round ``number``, which counts where labels of all rounds so far are learned from."""
    seconds = _ASSETS.get(asset, _nothing)(config, number)
    return _EVERY_ASSET + seconds


def probe_seconds(probe: Probe, config: LoopConfig) -> float:
    """Of a probe: that of its responses, or of its reward models."""
    return _EVERY_ASSET + _PROBES.get(probe.name, _nothing_of)(config, probe.options)


def _nothing(config: LoopConfig, number: int) -> float:
    return 0.0


def _nothing_of(config: LoopConfig, options: Mapping[str, Any]) -> float:
    return 0.0


def size_factor(config: LoopConfig) -> float:
    """Seconds for a token of the loop's model, as a share of those of the measured one."""
    tiny = config.base_model.tiny
    parameters = 12 * tiny.layers * tiny.width**2 + min(tiny.vocabulary, _VOCABULARY) * tiny.width
    return _FIXED + (1 - _FIXED) * parameters / MEASURED_PARAMETERS


def _whole(config: LoopConfig) -> int:
    """Tokens of a prompt with its response, at most."""
    return config.sampling.prompt_tokens + config.sampling.response_tokens


def _texts(config: LoopConfig, number: int) -> float:
    data = config.data
    return _TASK_TEXT * (data.prompts + data.demonstrations + data.pretraining_texts)


def _base_model(config: LoopConfig, number: int) -> float:
    tiny = config.base_model.tiny
    return _TRAINED_TOKEN * size_factor(config) * tiny.steps * tiny.batch_size * tiny.context


def _sft(config: LoopConfig, number: int) -> float:
    tokens = config.data.demonstrations * min(_whole(config), config.sft.max_tokens) * config.sft.epochs
    return _TRAINED_TOKEN * size_factor(config) * tokens


def _completions(config: LoopConfig, number: int) -> float:
    labeling = config.labeling
    pool = labeling.selection_pool if labeling.selection != "random" and number > 1 else 1
    return sampled(config, labeling.comparisons_per_round * labeling.responses * pool)


def sampled(config: LoopConfig, responses: float) -> float:
    """Seconds for so many responses."""
    return _SAMPLED_TOKEN * size_factor(config) * responses * config.sampling.response_tokens


def read(config: LoopConfig, responses: float) -> float:
    """Seconds to score so many responses, or to compute their probabilities."""
    return _READ_TOKEN * size_factor(config) * responses * _whole(config)


def learned(config: LoopConfig, comparisons: float) -> float:
    """Seconds to train a reward model on so many comparisons."""
    responses = comparisons * config.labeling.responses * config.reward_model.epochs
    normalised = 2 * sampled(config, config.reward_model.normalisation_samples)
    return _TRAINED_TOKEN * size_factor(config) * responses * _whole(config) + normalised


def _labels(config: LoopConfig, number: int) -> float:
    return _JUDGED * config.labeling.comparisons_per_round


def _reward_model(config: LoopConfig, number: int) -> float:
    return learned(config, number * config.labeling.comparisons_per_round)


def _halves(config: LoopConfig, number: int) -> float:
    return 0.0 if config.gate.max_reward_drift is None else _reward_model(config, number)


def _accuracy(config: LoopConfig, number: int) -> float:
    return read(config, number * config.labeling.comparisons_per_round * config.labeling.responses)


def _evaluation(config: LoopConfig, number: int) -> float:
    roles = 2 + (number > 1) + config.evaluation.best_of_n + len(config.arms)
    return _sampled_and_read(config, roles * config.evaluation.prompts)


def _report(config: LoopConfig, number: int) -> float:
    return read(config, 20 * config.evaluation.prompts)


def _by_reward(settings: PpoSettings, config: LoopConfig) -> float:
    """Of PPO and its variants: each episode is sampled, read by reference and reward model, and trained on."""
    episodes = settings.updates * settings.batch_size
    mixed = settings.pretraining_examples * (settings.pretraining_coef > 0)
    tokens = episodes * settings.epochs * (_whole(config) + mixed * config.base_model.tiny.context)
    trained = _TRAINED_TOKEN * size_factor(config) * tokens
    return sampled(config, episodes) + read(config, 3 * episodes) + trained


def _dpo(settings: DpoSettings, config: LoopConfig, number: int) -> float:
    responses = number * config.labeling.comparisons_per_round * config.labeling.responses
    return _TRAINED_TOKEN * size_factor(config) * responses * settings.epochs * _whole(config)


def _best_of_n_sft(settings: BestOfNSftSettings, config: LoopConfig) -> float:
    tokens = settings.prompts * settings.epochs * _whole(config)
    return sampled(config, settings.n * settings.prompts) + _TRAINED_TOKEN * size_factor(config) * tokens


def _best_of_n(config: LoopConfig, options: Mapping[str, Any]) -> float:
    return _sampled_and_read(config, max(options["n"]) * options["prompts"])


def _sampled_and_read(config: LoopConfig, responses: float) -> float:
    return sampled(config, responses) + read(config, responses)


_ASSETS: Mapping[str, Callable[[LoopConfig, int], float]] = {
    "pretraining_text": _texts,
    "base_model": _base_model,
    "sft_checkpoint": _sft,
    "completions": _completions,
    "preference_batch": _labels,
    "preference_labels": _labels,
    "reward_model": _reward_model,
    "reward_model_accuracy": _accuracy,
    "reward_model_halves": _halves,
    "ppo_policy": lambda config, _: _by_reward(config.ppo, config),
    "rloo_policy": lambda config, _: _by_reward(config.rloo, config),
    "grpo_policy": lambda config, _: _by_reward(config.grpo, config),
    "dpo_policy": lambda config, number: _dpo(config.dpo, config, number),
    "best_of_n_sft_policy": lambda config, _: _best_of_n_sft(config.best_of_n_sft, config),
    "evaluation_completions": _evaluation,
    "eval_report": _report,
}
assert {arm.asset for arm in TRAINED.values()} <= _ASSETS.keys()  # noqa: S101
_PROBES: Mapping[str, Callable[[LoopConfig, Mapping[str, Any]], float]] = {
    "zero_shot": lambda config, _: sampled(config, config.evaluation.prompts),
    "best_of_n": _best_of_n,
    "reward_accuracy": lambda config, options: (
        sampled(config, 2 * options["pairs"]) + read(config, 2 * options["pairs"])
    ),
    "annotator_folds": lambda config, options: options["folds"] * learned(config, options["comparisons"]),
    "last_words": lambda config, _: read(config, 2 * DOCUMENTS),
}
