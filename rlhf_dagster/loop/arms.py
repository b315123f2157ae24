"""What a round measures beside PPO on the same data: a DPO policy, and best-of-n of the SFT policy."""

import json
from typing import Any

import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.arms import BEST_OF_N, DPO, compare_arms
from rlhf_dagster.evaluation.samples import SFT, Scores, responses_by_role
from rlhf_dagster.evaluation.win_rate import POLICY
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.evaluation import judge_scores
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import sample_policy
from rlhf_dagster.records.ids import completion_id
from rlhf_dagster.records.schemas import EVALUATION_COMPLETIONS


def arms_of(loop: LoopFolder) -> list[str]:
    """Roles of the arms that the loop's config asks for."""
    return [*loop.config.arms, *([BEST_OF_N] if loop.config.evaluation.best_of_n else [])]


def sample_arms(
    loop: LoopFolder, round_key: str, completions: pd.DataFrame, sft: Checkpoint, reward_model: Checkpoint
) -> pd.DataFrame:
    """One response of each arm to the prompts that ``completions`` of the round's policy answer."""
    answered = completions[completions["role"] == POLICY]
    prompts = answered[["prompt_id", "prompt"]].rename(columns={"prompt": "text"})
    arms = arms_of(loop)
    frames = []
    if DPO in arms:
        seed = loop.config.stage_seed("evaluation of dpo", round_key)
        frames.append(sample_policy(loop, dpo_policy(loop, round_key), prompts, seed=seed, reference=sft))
    if BEST_OF_N in arms:
        frames.append(_sample_best_of_n(loop, round_key, prompts, sft, reward_model))
    return pd.concat([frame.assign(role=arm) for arm, frame in zip(arms, frames, strict=True)], ignore_index=True)


def measure_arms(loop: LoopFolder, completions: pd.DataFrame, reward_model: Checkpoint) -> list[dict[str, Any]]:
    """PPO's policy and each arm against SFT (:func:`compare_arms`); empty where there is no arm beside PPO."""
    arms = [arm for arm in (DPO, BEST_OF_N) if arm in set(completions["role"])]
    if not arms:
        return []
    scores: Scores = judge_scores(loop, completions, reward_model, (POLICY, SFT, *arms))
    return compare_arms(responses_by_role(completions, (POLICY, SFT, *arms)), scores, loop.config.evaluation.best_of_n)


def dpo_policy(loop: LoopFolder, round_key: str) -> Checkpoint:
    """The round's DPO policy, read without an edge of the asset graph: most loops have none."""
    path = loop.asset_path("dpo_policy", round_key, "json")
    if not path.exists():
        raise UserError(f"`arms` names dpo and {round_key} has no dpo_policy yet; materialise it first.")
    return Checkpoint.from_json(path.read_text(encoding="utf-8"), loop.root)


def _sample_best_of_n(
    loop: LoopFolder, round_key: str, prompts: pd.DataFrame, sft: Checkpoint, reward_model: Checkpoint
) -> pd.DataFrame:
    """Rows without log-probs: the probability of being the best of n is not known."""
    from rlhf_dagster.training.reward.scores import load_reward_model, score_responses
    from rlhf_dagster.training.sampling.best_of_n import best_of_n

    config, n = loop.config, loop.config.evaluation.best_of_n
    seed, model = config.stage_seed("evaluation of best of n", round_key), load_reward_model(reward_model.folder)
    texts, policy_id = prompts["text"].tolist(), f"{sft.model_id}-best-of-{n}"
    kept = best_of_n(
        sft.folder,
        texts,
        lambda asked, given: score_responses(model, asked, given, config.sampling, config.compute),
        n,
        config.sampling,
        seed,
        config.compute,
    )
    decoding = config.sampling.model_dump(exclude={"batch_size"}) | {"best_of_n": n}
    records = [
        {
            "completion_id": completion_id(prompt_id, policy_id, decoding, seed, 0),
            "prompt_id": prompt_id,
            "prompt": text,
            "policy_id": policy_id,
            "index": 0,
            "text": best.sample.text,
            "token_ids": best.sample.token_ids,
            "log_probs": [],
            "reference_log_probs": [],
            "decoding": json.dumps(decoding, sort_keys=True),
            "seed": seed,
        }
        for prompt_id, text, best in zip(prompts["prompt_id"], texts, kept, strict=True)
    ]
    return pd.DataFrame(records, columns=EVALUATION_COMPLETIONS.names[:-1])
