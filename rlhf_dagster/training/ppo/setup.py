"""From a PPO spec to the policy that is trained, the reference that it is held to, and the reward."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_dagster.config.judging.reward import ModelReward, RewardTerm, terms_of
from rlhf_dagster.config.training import ComputeSettings, PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import folder_digest, holds_adapters
from rlhf_dagster.records.chats import Prompt, prompts_of
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.schemas import PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.records.tables import read_table, rows_of_split
from rlhf_dagster.training.checkpoints.context import context_of, require_context
from rlhf_dagster.training.functions import decisive_reward
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.lora import inner_model
from rlhf_dagster.training.models.own_adapters import begin_adapters, end_adapters, require_no_adapters
from rlhf_dagster.training.models.passes.narrow_weights import prepare_training
from rlhf_dagster.training.models.policies import Policy, load_model, load_policy, load_tokenizer, save_policy
from rlhf_dagster.training.models.sharding.opening import Sharding, sharding_models
from rlhf_dagster.training.models.sharding.twin import PlainTwin
from rlhf_dagster.training.models.shared_bases import SharedBases
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
from rlhf_dagster.training.ppo.reward import Score, TextScore, WeightedSum, by_text, ensemble_scores
from rlhf_dagster.training.ppo.rollout import Episodes
from rlhf_dagster.training.ppo.truncation import truncate_id
from rlhf_dagster.training.reward.scores import RewardModel, load_reward_model, require_room
from rlhf_dagster.training.rewards.python_function import load_reward_function
from rlhf_dagster.training.rewards.terms import Surroundings, text_reward
from rlhf_dagster.training.runtime.device import require_a_row_for_each_rank
from rlhf_dagster.training.runtime.distributed import on_main, world
from rlhf_dagster.training.runtime.seeding import seed_everything
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.sampling.drawing import drawing_of
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
    twin: PlainTwin | None = None
    """Where the models are in parts: a plain copy of the policy and of those with adapters, to be put together."""

    def save(self, spec: PpoSpec, folder: Path) -> None:
        """Write the policy, adapters merged unless they stay, and beside it what a later run goes on from."""
        if self.twin is not None:
            policy, *adapted = self.twin.put_together()
            plain = replace(self, policy=cast("PpoPolicy", policy), adapted=cast("Any", adapted), twin=None)
            on_main(lambda: plain.save(spec, folder))
            return
        for model in self.adapted:
            assert spec.settings.lora is not None  # noqa: S101  # nothing is adapted without it
            end_adapters(model, spec.settings.lora)
        save_policy(Policy(self.policy.model, self.tokenizer), spec.sampling, folder)
        save_ppo_state(self.policy, self.controller, folder)


def prepare_ppo(spec: PpoSpec) -> PpoSetup:
    """Open the models and tables of ``spec``, ready to be trained; raises UserError for what cannot be."""
    with sharding_models(spec.compute, shards(spec.compute)) as sharding:
        return _prepare(spec, sharding)


def _prepare(spec: PpoSpec, sharding: Sharding) -> PpoSetup:
    opening = replace(spec, compute=sharding.opening)
    bases = SharedBases(opening.compute, spec.settings.lora)
    start = load_policy(spec.start, opening.compute, _shared(spec, spec.start, bases), trained=True)
    sft = None if _own_reference(spec) else _reference(opening, bases)
    shares_layers = spec.settings.frozen_layers > 0
    sharding.shard_read(None if sft is None or shares_layers else sft.model)
    reward_model = _reward_model(opening, bases)
    sharding.shard_read(None if reward_model is None else reward_model.model)
    _check(spec, start, load_tokenizer(spec.sft) if sft is None else sft.tokenizer, reward_model)
    prompts, cuts = prompts_of(_prompts(spec, "train"), "text"), Cuts()
    seed_everything(spec.seed)
    encoded = encode_prompts(start.tokenizer, prompts, spec.sampling.prompt_tokens, cuts)
    adapted = _adapted(spec, start.model)
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
    sharding.shard_read(sft.model if sft is not None and shares_layers else None)
    policy = _with_values(opening, model, adapted, bases).to(start.device)
    controller = kl_controller(spec.settings)
    resume_ppo_state(policy, controller, spec.start)
    _make_ready(policy, spec.compute)
    twin = sharding.twin(policy, *adapted)
    sharding.shard(*policy.language_models())
    sharding.shard_head(policy.value_head)
    return PpoSetup(policy, controller, episodes, start.tokenizer, adapted, cuts, twin)


def _make_ready(policy: PpoPolicy, compute: ComputeSettings) -> None:
    """Hold what is trained as ``compute`` says."""
    if compute.trained_weights == "bf16":
        drawing_of(policy.model)  # found out while weights are in float32
    for model in policy.language_models():
        prepare_training(model, compute)


def _reference(spec: PpoSpec, bases: SharedBases) -> Policy:
    """SFT; frozen layers that it shares with the policy are those of a policy that is trained."""
    whole = spec.settings.frozen_layers > 0
    return load_policy(spec.sft, spec.compute, _shared(spec, spec.sft, bases), trained=whole)


def _shared(spec: PpoSpec, folder: Path, bases: SharedBases) -> SharedBases | None:
    """What a policy shares with other models: its plain weights, where it is or stays adapters."""
    stay = spec.settings.lora is not None and not spec.settings.lora.merge
    return bases if stay or holds_adapters(folder) else None


def _adapted(spec: PpoSpec, model: PreTrainedModel) -> list[PeftModel]:
    if spec.settings.lora is None:
        require_no_adapters(model, "ppo.lora")
        return []
    return [begin_adapters(model, spec.settings.lora, spec.start)]


def _own_reference(spec: PpoSpec) -> bool:
    """Whether the policy without its adapters is the SFT model."""
    if spec.settings.lora is None or holds_adapters(spec.start):
        return False
    return spec.start == spec.sft or folder_digest(spec.start) == folder_digest(spec.sft)


def _frozen_reference(spec: PpoSpec, policy: PreTrainedModel, sft: PreTrainedModel) -> PreTrainedModel:
    if spec.settings.frozen_layers:
        require_no_adapters(sft, "ppo.lora")
        freeze_layers(policy, spec.settings.frozen_layers)
        share_frozen(policy, sft)
    return sft.requires_grad_(False)


def _with_values(
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


def _reward_model(spec: PpoSpec, bases: SharedBases) -> RewardModel | None:
    """The reward model that the spec names, where it is used."""
    separate = spec.settings.value == "separate"
    if spec.reward_function is not None and spec.reward is not None:
        raise UserError("reward and reward_function are both given; name the function in `reward` (`kind: function`).")
    if spec.reward_model is not None and not spec.rewarded_by_model and not separate:
        other = "reward_function" if spec.reward_function is not None else "a reward of another kind"
        raise UserError(f"reward_model and {other} are both given, and only one can reward; leave one out.")
    if spec.reward_model is not None:
        return load_reward_model(spec.reward_model, spec.compute, bases)
    if spec.rewarded_by_model or separate:
        use = "`ppo.value: separate` begins as a reward model" if separate else "nothing rewards the policy"
        raise UserError(f"reward_model is not given, but {use}; give one.")
    return None


def _score(
    spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> Score | TextScore | WeightedSum:
    if spec.reward_function is not None:
        return TextScore(tokenizer, load_reward_function(spec.reward_function))
    if spec.reward is None:
        return _model_score(spec, tokenizer, reward_model)
    terms = terms_of(spec.reward)
    scores = [_term_score(term, spec, tokenizer, reward_model) for term in terms]
    return WeightedSum(_names(terms), [term.weight for term in terms], scores)


def _names(terms: list[RewardTerm]) -> list[str]:
    """The kind of each term, numbered where there are several of it."""
    kinds = [term.kind for term in terms]
    numbers = [kinds[: index + 1].count(kind) for index, kind in enumerate(kinds)]
    return [kind if number == 1 else f"{kind}_{number}" for kind, number in zip(kinds, numbers, strict=True)]


def _term_score(
    term: RewardTerm, spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> Score | TextScore:
    if isinstance(term, ModelReward):
        return _model_score(spec, tokenizer, reward_model)
    around = Surroundings(spec.compute, spec.answers or f"{spec.output}.answers", _purpose(spec))
    return TextScore(tokenizer, text_reward(term, around))


def _purpose(spec: PpoSpec) -> str:
    """What a judge's requests are counted for: the same for a training that goes on, another for any other."""
    assert spec.reward is not None  # noqa: S101  # only then is there a judge
    models = [folder.name for folder in (spec.start, spec.reward_model) if folder is not None]
    return f"ppo-{content_hash(spec.seed, models, decisive_reward(spec.reward))}"


def _model_score(
    spec: PpoSpec, tokenizer: PreTrainedTokenizerBase, reward_model: RewardModel | None
) -> Score | TextScore:
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
    if shards(spec.compute) and spec.sampling.batch_size == 1:
        raise UserError(
            "sampling.batch_size is 1, with which one process would read a response while another has none left; raise "
            "it, or set compute.sharding to none."
        )
    if rows // world() < settings.accumulate:
        raise UserError(
            f"ppo.accumulate is {settings.accumulate}, more than the {rows // world()} rows of a process's minibatch."
        )


def _check_reward(spec: PpoSpec, start: Policy, reward_model: RewardModel | None) -> None:
    settings = spec.settings
    heads = 1 if reward_model is None or not spec.rewarded_by_model else reward_model.model.config.num_labels
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
