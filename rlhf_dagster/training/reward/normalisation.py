"""What a reward model's scores are normalised on: samples of the SFT policy, or demonstrations."""

import numpy as np
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PROMPTS
from rlhf_dagster.records.tables import read_table, rows_of_split
from rlhf_dagster.training.models.log_probs import decoding_of
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.models.sharding.weights import whole_weights
from rlhf_dagster.training.models.shared_bases import SharedBases
from rlhf_dagster.training.reward.heads import center, normalise
from rlhf_dagster.training.reward.scores import RewardModel, encode_pairs
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import RewardModelSpec
from rlhf_dagster.training.texts.tokens import TokenIds, encode_prompts


def sampled_policy(spec: RewardModelSpec, bases: SharedBases | None = None) -> Policy | None:
    """The SFT policy, whose samples normalise scores; None where demonstrations do.

    It shares its weights with all models that are opened with ``bases``. Raises UserError where a table is missing.
    """
    _check(spec)
    if spec.settings.normalisation == "demonstrations":
        return None
    return load_policy(spec.sft, spec.compute, bases)


def begin_scale(spec: RewardModelSpec, reward_model: RewardModel, sft: Policy | None) -> list[TokenIds]:
    """Normalise new heads, where samples of ``sft`` do it; returns what is to normalise them after training."""
    if sft is None:
        return demonstrated(spec, reward_model.tokenizer)
    reference = reference_samples(spec, sft)
    normalise(reward_model, reference, each_head=True)
    return reference


def end_scale(spec: RewardModelSpec, reward_model: RewardModel, reference: list[TokenIds]) -> float:
    """Normalise trained heads; returns the factor that takes the scores back to the scale they were trained on."""
    if spec.settings.normalisation == "demonstrations":
        center(reward_model, reference)
        return 1.0
    return normalise(reward_model, reference)


def demonstrated(spec: RewardModelSpec, tokenizer: PreTrainedTokenizerBase) -> list[TokenIds]:
    """At most `normalisation_samples` of the `train` demonstrations, as the reward model reads prompt and response."""
    assert spec.demonstrations is not None  # noqa: S101  # checked before
    frame = rows_of_split(read_table(spec.demonstrations, DEMONSTRATIONS), "train", spec.demonstrations)
    count = min(spec.settings.normalisation_samples, len(frame))
    rows = frame.iloc[np.random.default_rng(spec.seed).choice(len(frame), size=count, replace=False)]
    responses = rows["response"].tolist()
    return encode_pairs(tokenizer, prompts_of(rows), responses, spec.sampling, spec.settings.max_tokens)


def reference_samples(spec: RewardModelSpec, sft: Policy) -> list[TokenIds]:
    """One SFT sample for each of `normalisation_samples` train prompts, as ids of prompt and response."""
    frame = rows_of_split(read_table(spec.prompts, PROMPTS), "train", spec.prompts)
    chosen = np.random.default_rng(spec.seed).choice(len(frame), size=spec.settings.normalisation_samples)
    prompts = prompts_of(frame.iloc[chosen], "text")
    with whole_weights(sft.model):
        samples = sample(sft, prompts, spec.sampling, seed=spec.seed)
    encoded = encode_prompts(sft.tokenizer, prompts, spec.sampling.prompt_tokens)
    decoding = decoding_of(sft.tokenizer, spec.sampling)
    end = [] if decoding.fixed_length else [decoding.end_id]
    bodies = [drawn.token_ids + ([] if drawn.token_ids[-1] in decoding.end_ids else end) for drawn in samples]
    return [prompt + body for prompt, body in zip(encoded, bodies, strict=True)]


def _check(spec: RewardModelSpec) -> None:
    wanted = spec.settings.normalisation == "demonstrations"
    if wanted and spec.demonstrations is None:
        raise UserError("`reward_model.normalisation: demonstrations` needs a table of them; give `demonstrations`.")
    if not wanted and spec.demonstrations is not None:
        raise UserError(
            "`demonstrations` are given, and `reward_model.normalisation: samples` does not read them; set it to "
            "`demonstrations`, or leave the table out."
        )
