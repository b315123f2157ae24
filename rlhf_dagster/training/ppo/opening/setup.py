"""From a PPO spec to the policy that is trained, the reference that it is held to, and the reward."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.lora import inner_model
from rlhf_dagster.training.models.own_adapters import end_adapters
from rlhf_dagster.training.models.passes.narrow_weights import prepare_training
from rlhf_dagster.training.models.policies import Policy, load_policy, load_tokenizer, save_policy
from rlhf_dagster.training.models.sharding.opening import Sharding, sharding_models
from rlhf_dagster.training.models.sharding.twin import PlainTwin
from rlhf_dagster.training.models.shared_bases import SharedBases
from rlhf_dagster.training.ppo.kl_penalty import KlController, kl_controller
from rlhf_dagster.training.ppo.opening.checks import require_trainable
from rlhf_dagster.training.ppo.opening.models import (
    adapted_models,
    frozen_reference,
    is_own_reference,
    reference_policy,
    shared_weights,
    with_values,
)
from rlhf_dagster.training.ppo.opening.scoring import open_reward_model, score_of
from rlhf_dagster.training.ppo.opening.tables import held_out_prompts, pretraining_windows, prompts_in
from rlhf_dagster.training.ppo.policy import (
    PpoPolicy,
    resume_ppo_state,
    save_ppo_state,
)
from rlhf_dagster.training.ppo.rollout import Episodes
from rlhf_dagster.training.ppo.truncation import truncate_id
from rlhf_dagster.training.runtime.distributed import on_main
from rlhf_dagster.training.runtime.seeding import seed_everything
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.sampling.drawing import drawing_of
from rlhf_dagster.training.specs import PpoSpec
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
    start = load_policy(spec.start, opening.compute, shared_weights(spec, spec.start, bases), trained=True)
    sft = None if is_own_reference(spec) else reference_policy(opening, bases)
    shares_layers = spec.settings.frozen_layers > 0
    sharding.shard_read(None if sft is None or shares_layers else sft.model)
    reward_model = open_reward_model(opening, bases)
    sharding.shard_read(None if reward_model is None else reward_model.model)
    require_trainable(spec, start, load_tokenizer(spec.sft) if sft is None else sft.tokenizer, reward_model)
    prompts, cuts = prompts_of(prompts_in(spec, "train"), "text"), Cuts()
    seed_everything(spec.seed)
    encoded = encode_prompts(start.tokenizer, prompts, spec.sampling.prompt_tokens, cuts)
    adapted = adapted_models(spec, start.model)
    model = inner_model(adapted[0]) if adapted else start.model
    held_out = [] if spec.settings.validate_every is None else held_out_prompts(spec)
    episodes = Episodes(
        prompts=encoded,
        reference=adapted[0] if sft is None else frozen_reference(spec, model, sft.model),
        score=score_of(spec, start.tokenizer, reward_model),
        decoding=decoding_of(start.tokenizer, spec.sampling),
        pretraining=pretraining_windows(spec, start),
        texts=prompts,
        truncate_id=truncate_id(start.tokenizer, spec.settings),
        held_out=encode_prompts(start.tokenizer, held_out, spec.sampling.prompt_tokens),
        held_out_texts=held_out,
        rows_at_once=spec.sampling.batch_size,
    )
    sharding.shard_read(sft.model if sft is not None and shares_layers else None)
    policy = with_values(opening, model, adapted, bases).to(start.device)
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
