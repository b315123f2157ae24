"""From a PPO spec to the policy that is trained, the reference that it is held to, and the reward."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.chats import Prompt, prompts_of
from rlhf_dagster.records.schemas import PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.records.tables import read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import context_of, require_context
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.lora import add_lora, inner_model, merge_lora
from rlhf_dagster.training.models.policies import Policy, load_model, load_policy, load_tokenizer, save_policy
from rlhf_dagster.training.models.windows import text_windows
from rlhf_dagster.training.ppo.freezing import freeze_layers
from rlhf_dagster.training.ppo.frozen_layers import share_frozen
from rlhf_dagster.training.ppo.kl_penalty import KlController, kl_controller
from rlhf_dagster.training.ppo.memory import LONGEST_WINDOW
from rlhf_dagster.training.ppo.policy import (
    VALUE_MODEL_FOLDER,
    PolicyWithValue,
    PolicyWithValueModel,
    PpoPolicy,
    resume_ppo_state,
    save_ppo_state,
)
from rlhf_dagster.training.ppo.reward import Score, TextScore, by_text, ensemble_scores, load_reward_function
from rlhf_dagster.training.ppo.rollout import Episodes
from rlhf_dagster.training.ppo.truncation import truncate_id
from rlhf_dagster.training.reward.scores import RewardModel, load_reward_model, require_room
from rlhf_dagster.training.runtime.device import require_a_row_for_each_rank
from rlhf_dagster.training.runtime.distributed import world
from rlhf_dagster.training.runtime.seeding import seed_everything
from rlhf_dagster.training.scorers.sequence_scorer import AutoSequenceScorer
from rlhf_dagster.training.specs import PpoSpec
from rlhf_dagster.training.texts.chats.ends import end_id_of
from rlhf_dagster.training.texts.cuts import Cuts
from rlhf_dagster.training.texts.tokens import encode_prompts


@dataclass(frozen=True)
class PpoSetup:
    """Everything that a run begins with."""

    policy: PpoPolicy
    controller: KlController
    episodes: Episodes
    tokenizer: PreTrainedTokenizerBase
    adapted: list[PeftModel] = field(default_factory=list)
    """Those of the policy's models that have adapters."""
    cuts: Cuts = field(default_factory=Cuts)
    """What is lost of the prompts."""

    def save(self, spec: PpoSpec, folder: Path) -> None:
        """Write the policy as a plain checkpoint, adapters merged, and beside it what a later run goes on from."""
        for model in self.adapted:
            merge_lora(model)
        save_policy(Policy(self.policy.model, self.tokenizer), spec.sampling, folder)
        save_ppo_state(self.policy, self.controller, folder)


def prepare_ppo(spec: PpoSpec) -> PpoSetup:
    """Open the models and tables of ``spec``; raises UserError for what cannot be trained."""
    start = load_policy(spec.start, spec.compute)
    sft = None if _own_reference(spec) else load_policy(spec.sft, spec.compute)
    reward_model = _reward_model(spec)
    _check(spec, start, load_tokenizer(spec.sft) if sft is None else sft.tokenizer, reward_model)
    prompts, cuts = prompts_of(_prompts(spec, "train"), "text"), Cuts()
    seed_everything(spec.seed)
    encoded = encode_prompts(start.tokenizer, prompts, spec.sampling.prompt_tokens, cuts)
    adapted = [] if spec.settings.lora is None else [add_lora(start.model, spec.settings.lora)]
    model = inner_model(adapted[0]) if adapted else start.model
    held_out = [] if spec.settings.validate_every is None else _held_out(spec)
    episodes = Episodes(
        prompts=encoded,
        reference=adapted[0] if sft is None else _frozen_reference(spec, model, sft.model),
        score=_score(spec, start.tokenizer, reward_model),
        decoding=decoding_of(start.tokenizer, spec.sampling),
        pretraining=_pretraining_windows(spec, start),
        texts=prompts,
        truncate_id=truncate_id(start.tokenizer, spec.settings),
        held_out=encode_prompts(start.tokenizer, held_out, spec.sampling.prompt_tokens),
        held_out_texts=held_out,
        rows_at_once=spec.sampling.batch_size,
    )
    policy = _with_values(spec, model, reward_model, adapted).to(start.device)
    controller = kl_controller(spec.settings)
    resume_ppo_state(policy, controller, spec.start)
    return PpoSetup(policy, controller, episodes, start.tokenizer, adapted, cuts)


def _own_reference(spec: PpoSpec) -> bool:
    """Whether the policy without its adapters is the SFT model."""
    if spec.settings.lora is None:
        return False
    return spec.start == spec.sft or folder_digest(spec.start) == folder_digest(spec.sft)


def _frozen_reference(spec: PpoSpec, policy: PreTrainedModel, sft: PreTrainedModel) -> PreTrainedModel:
    if spec.settings.frozen_layers:
        freeze_layers(policy, spec.settings.frozen_layers)
        share_frozen(policy, sft)
    return sft.requires_grad_(False)


def _with_values(
    spec: PpoSpec, model: PreTrainedModel, reward_model: RewardModel | None, adapted: list[PeftModel]
) -> PpoPolicy:
    """The policy with the values that its estimator needs; a value model with adapters joins ``adapted``."""
    settings = spec.settings
    if settings.advantages != "gae":
        return PpoPolicy(model)
    if settings.value == "shared":
        return PolicyWithValue(model)
    value_model = _initial_value_model(spec, reward_model)
    if settings.lora is not None:
        adapted.append(add_lora(value_model, settings.lora, keep=["score"]))
        value_model = inner_model(adapted[-1])
    return PolicyWithValueModel(model, value_model)


def _initial_value_model(spec: PpoSpec, reward_model: RewardModel | None) -> PreTrainedModel:
    """The value model saved beside the start, where there is one; otherwise a copy of the reward model."""
    folder = spec.start / VALUE_MODEL_FOLDER
    if folder.is_dir():
        return load_model(AutoSequenceScorer, folder).eval()
    assert reward_model is not None  # noqa: S101  # checked before
    return copy.deepcopy(reward_model.model)


def _reward_model(spec: PpoSpec) -> RewardModel | None:
    """The reward model that the spec names, where it is used."""
    separate = spec.settings.value == "separate"
    if spec.reward_function is not None and spec.reward_model is not None and not separate:
        raise UserError("reward_model and reward_function are both given, and only one can reward; leave one out.")
    if spec.reward_model is not None:
        return load_reward_model(spec.reward_model, spec.compute)
    if spec.reward_function is None or separate:
        use = "`ppo.value: separate` begins as a reward model" if separate else "nothing rewards the policy"
        raise UserError(f"reward_model is not given, but {use}; give one.")
    return None


def _score(spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None) -> Score | TextScore:
    if spec.reward_function is not None:
        return TextScore(tokenizer, load_reward_function(spec.reward_function))
    assert reward_model is not None  # noqa: S101  # checked before
    model = reward_model.model
    if not _same_tokens(tokenizer, reward_model.tokenizer):
        return TextScore(tokenizer, by_text(reward_model, spec.sampling))
    return lambda batch: ensemble_scores(model, batch)


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    special = [(tokenizer.pad_token_id, end_id_of(tokenizer)) for tokenizer in (one, other)]
    return special[0] == special[1] and one.get_vocab() == other.get_vocab()


def _prompts(spec: PpoSpec, split: str) -> pd.DataFrame:
    return rows_of_split(read_table(spec.prompts, PROMPTS), split, spec.prompts)


def _held_out(spec: PpoSpec) -> list[Prompt]:
    rows, most = _prompts(spec, "validation"), spec.settings.validation_prompts
    count = min(len(rows), most)
    require_a_row_for_each_rank(min(count, spec.settings.batch_size // 2), "Validation (ppo.validation_prompts)")
    return prompts_of(rows.sample(count, random_state=spec.seed), "text")


def _pretraining_windows(spec: PpoSpec, start: Policy) -> Tensor | None:
    if spec.settings.pretraining_coef == 0:
        return None
    if spec.pretraining_text is None:
        raise UserError("ppo.pretraining_coef is above 0 but there is no pretraining text; give some or set it to 0.")
    rows = rows_of_split(read_table(spec.pretraining_text, PRETRAINING_TEXT), "train", spec.pretraining_text)
    context = min(context_of(start.model.config) or LONGEST_WINDOW, LONGEST_WINDOW)
    return text_windows(start.tokenizer, rows["text"].tolist(), context)


def _check(
    spec: PpoSpec, start: Policy, sft_tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> None:
    settings, sampling = spec.settings, spec.sampling
    _check_batches(spec)
    if settings.missing_end_penalty is not None and sampling.fixed_length and settings.truncate_token is None:
        raise UserError(
            "ppo.missing_end_penalty needs `sampling.fixed_length: false` or a ppo.truncate_token: no response of a "
            "fixed length ends."
        )
    if start.tokenizer.get_vocab() != sft_tokenizer.get_vocab():
        raise UserError(
            f"{spec.start}: its tokenizer differs from that of {spec.sft}; start from a policy trained from it."
        )
    if settings.importance_cap != PpoSettings().importance_cap and spec.compute.rollout_backend == "native":
        raise UserError("ppo.importance_cap has no use where `compute.rollout_backend` is `native`; leave it out.")
    needed = sampling.prompt_tokens + sampling.response_tokens
    require_context(start.model.config, needed, "sampling.prompt_tokens + sampling.response_tokens")
    _check_reward(spec, start, reward_model)


def _check_batches(spec: PpoSpec) -> None:
    settings = spec.settings
    if settings.minibatches > settings.batch_size:
        raise UserError(
            f"ppo.minibatches is {settings.minibatches}, more than the {settings.batch_size} episodes of an update."
        )
    rows = settings.batch_size // settings.minibatches
    require_a_row_for_each_rank(rows, "A minibatch of PPO (ppo.minibatches)")
    if rows // world() < settings.accumulate:
        raise UserError(
            f"ppo.accumulate is {settings.accumulate}, more than the {rows // world()} rows of a process's minibatch."
        )


def _check_reward(spec: PpoSpec, start: Policy, reward_model: RewardModel | None) -> None:
    settings = spec.settings
    heads = 1 if reward_model is None or spec.reward_function else reward_model.model.config.num_labels
    if heads == 1 and (settings.spread_coef > 0 or settings.spread_limit is not None):
        name = "spread_coef" if settings.spread_coef > 0 else "spread_limit"
        raise UserError(f"ppo.{name} needs an ensemble as reward model; train one, or leave the setting out.")
    if reward_model is None:
        return
    if _same_tokens(start.tokenizer, reward_model.tokenizer):
        require_room(reward_model.model.config.score_max_tokens, spec.sampling)
    elif settings.value == "separate":
        raise UserError(
            f"{spec.reward_model}: its tokenizer is not the policy's, so that no value model can begin as it; "
            "set `ppo.value: shared`."
        )
