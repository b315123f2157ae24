"""The policy's reference, its adapters and its values, as a PPO spec has them."""

from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest, holds_adapters
from rlhf_dagster.training.models.lora import inner_model
from rlhf_dagster.training.models.own_adapters import begin_adapters, require_no_adapters
from rlhf_dagster.training.models.policies import Policy, load_model, load_policy
from rlhf_dagster.training.models.shared_bases import SharedBases
from rlhf_dagster.training.ppo.freezing import freeze_layers
from rlhf_dagster.training.ppo.frozen_layers import share_frozen
from rlhf_dagster.training.ppo.policy import (
    VALUE_MODEL_FOLDER,
    PolicyWithValue,
    PolicyWithValueModel,
    PpoPolicy,
)
from rlhf_dagster.training.scorers.sequence_scorer import AutoSequenceScorer
from rlhf_dagster.training.specs import PpoSpec


def reference_policy(spec: PpoSpec, bases: SharedBases) -> Policy:
    """SFT; frozen layers that it shares with the policy are those of a policy that is trained."""
    whole = spec.settings.frozen_layers > 0
    return load_policy(spec.sft, spec.compute, shared_weights(spec, spec.sft, bases), trained=whole)


def shared_weights(spec: PpoSpec, folder: Path, bases: SharedBases) -> SharedBases | None:
    """What a policy shares with other models: its plain weights, where it is or stays adapters."""
    stay = spec.settings.lora is not None and not spec.settings.lora.merge
    return bases if stay or holds_adapters(folder) else None


def adapted_models(spec: PpoSpec, model: PreTrainedModel) -> list[PeftModel]:
    if spec.settings.lora is None:
        require_no_adapters(model, "ppo.lora")
        return []
    return [begin_adapters(model, spec.settings.lora, spec.start)]


def is_own_reference(spec: PpoSpec) -> bool:
    """Whether the policy without its adapters is the SFT model."""
    if spec.settings.lora is None or holds_adapters(spec.start):
        return False
    return spec.start == spec.sft or folder_digest(spec.start) == folder_digest(spec.sft)


def frozen_reference(spec: PpoSpec, policy: PreTrainedModel, sft: PreTrainedModel) -> PreTrainedModel:
    if spec.settings.frozen_layers:
        require_no_adapters(sft, "ppo.lora")
        freeze_layers(policy, spec.settings.frozen_layers)
        share_frozen(policy, sft)
    return sft.requires_grad_(False)


def with_values(
    spec: PpoSpec,
    model: PreTrainedModel,
    adapted: list[PeftModel],
    bases: SharedBases,
) -> PpoPolicy:
    """The policy with the values that its estimator needs; a value model with adapters joins ``adapted``."""
    settings = spec.settings
    if settings.advantages != "gae":
        return PpoPolicy(model)
    if settings.value == "shared":
        return PolicyWithValue(model)
    value_model = _initial_value_model(spec, bases)
    if settings.lora is None:
        require_no_adapters(value_model, "ppo.lora")
    else:
        adapted.append(begin_adapters(value_model, settings.lora, _origin(spec), heads=["score"]))
        value_model = inner_model(adapted[-1])
    return PolicyWithValueModel(model, value_model)


def _initial_value_model(spec: PpoSpec, bases: SharedBases) -> PreTrainedModel:
    """The value model saved beside the start, where there is one; otherwise the reward model once more.

    Raises UserError where its adapters would belong to a reward model that is no language model.
    """
    folder, lora = _origin(spec), spec.settings.lora
    if lora is not None and not lora.merge and not holds_adapters(folder):
        raise UserError(
            f"{folder}: `ppo.value: separate` with `ppo.lora.merge: false` needs a reward model and a value model that "
            "are adapters too; set `reward_model.lora.merge: false`, or `ppo.value: shared`."
        )
    shared = bases if holds_adapters(folder) else None
    # As if the reward model had been copied: what is drawn next does not depend on how it is opened.
    with torch.random.fork_rng(devices=[], enabled=folder == spec.reward_model):
        return load_model(AutoSequenceScorer, folder, spec.compute, bases=shared).eval()


def _origin(spec: PpoSpec) -> Path:
    """The folder that a separate value model begins as."""
    folder = spec.start / VALUE_MODEL_FOLDER
    assert spec.reward_model is not None  # noqa: S101  # checked before
    return folder if folder.is_dir() else spec.reward_model
