"""What a round measures beside its candidate, on the same prompts: the other arms' policies, and best-of-n."""

import json
from typing import Any

import pandas as pd

from rlhf_dagster.config.arms import ARMS, Arm
from rlhf_dagster.evaluation.arms import compare_arms
from rlhf_dagster.evaluation.samples import SFT, Scores, responses_by_role
from rlhf_dagster.evaluation.win_rate import POLICY
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import arm_policy, round_candidate
from rlhf_dagster.loop.evaluation import judge_scores
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.measuring.known_about import known_about
from rlhf_dagster.loop.sampling import as_prompts, best_responses, sample_policy
from rlhf_dagster.records.chats import messages_of, prompts_of
from rlhf_dagster.records.ids import completion_id
from rlhf_dagster.records.schemas import EVALUATION_COMPLETIONS


def sample_arms(
    loop: LoopFolder, round_key: str, completions: pd.DataFrame, sft: Checkpoint, reward_model: Checkpoint
) -> list[pd.DataFrame]:
    """Responses of each arm beside the candidate to the prompts that ``completions`` of the round's policy answer.

    One table for each arm, with its role: a response for each prompt.
    """
    answered = completions[completions["role"] == POLICY]
    prompts = as_prompts(answered)
    frames = []
    for arm in loop.config.arms_beside(round_candidate(loop, round_key).arm):
        seed = loop.config.stage_seed(f"evaluation of {arm.name.replace('_', ' ')}", round_key)
        if arm.asset:
            frame = sample_policy(loop, arm_policy(loop, arm, round_key), prompts, seed=seed, reference=sft)
        else:
            frame = _sample_best_of_n(loop, seed, prompts, sft, reward_model)
        frames.append(frame.assign(role=arm.name))
    return frames


def measure_arms(
    loop: LoopFolder, completions: pd.DataFrame, reward_model: Checkpoint, candidate: Arm
) -> list[dict[str, Any]]:
    """The candidate and each arm against SFT (:func:`compare_arms`); empty where there is no arm beside it."""
    answered = set(completions["role"])
    arms = [arm.name for arm in ARMS if arm.name in answered]
    if not arms:
        return []
    roles = (POLICY, SFT, *arms)
    scores: Scores = judge_scores(loop, completions, reward_model, roles)
    rows, known = responses_by_role(completions, roles), known_about(loop, completions)
    return compare_arms(rows, scores, loop.config.evaluation.best_of_n, candidate, known)


def _sample_best_of_n(
    loop: LoopFolder, seed: int, prompts: pd.DataFrame, sft: Checkpoint, reward_model: Checkpoint
) -> pd.DataFrame:
    """Rows of best-of-n responses, without log-probs: the probability of being the best of n is not known."""
    n, asked = loop.config.evaluation.best_of_n, prompts_of(prompts, "text")
    policy_id = f"{sft.model_id}-best-of-{n}"
    kept = best_responses(loop, sft, reward_model, asked, n, seed)
    tokenizer = tokenizer_digest(sft.folder)
    decoding = loop.config.sampling.model_dump(exclude={"batch_size"}) | {"best_of_n": n}
    records = [
        {
            "completion_id": completion_id(prompt_id, policy_id, decoding, seed, 0),
            "prompt_id": prompt_id,
            "prompt": str(prompt),
            "messages": messages_of(prompt),
            "policy_id": policy_id,
            "index": 0,
            "text": best.sample.text,
            "token_ids": best.sample.token_ids,
            "log_probs": [],
            "reference_log_probs": [],
            "decoding": json.dumps(decoding, sort_keys=True),
            "seed": seed,
            "tokenizer": tokenizer,
        }
        for prompt_id, prompt, best in zip(prompts["prompt_id"], asked, kept, strict=True)
    ]
    return pd.DataFrame(records, columns=EVALUATION_COMPLETIONS.names[:-1])
