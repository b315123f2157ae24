"""What cannot be trained by PPO, said before the first update."""

from transformers import PreTrainedTokenizerBase

from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.checkpoints.context import require_context
from rlhf_dagster.training.models.policies import Policy
from rlhf_dagster.training.ppo.opening.scoring import reads_same_tokens
from rlhf_dagster.training.reward.scores import RewardModel, require_room
from rlhf_dagster.training.runtime.device import require_a_row_for_each_rank
from rlhf_dagster.training.runtime.distributed import world
from rlhf_dagster.training.runtime.sharding.tensors import shards
from rlhf_dagster.training.specs import PpoSpec


def require_trainable(
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
    if reads_same_tokens(start.tokenizer, reward_model.tokenizer):
        require_room(reward_model.model.config.score_max_tokens, spec.sampling)
    elif settings.value == "separate":
        raise UserError(
            f"{spec.reward_model}: its tokenizer is not the policy's, so that no value model can begin as it; "
            "set `ppo.value: shared`."
        )
