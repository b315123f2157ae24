"""How often the last reward model is right on new pairs of responses, the same ones for loops that sample alike."""

import math
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import sample_policy
from rlhf_dagster.replication.probes.responses import made_model, test_prompts
from rlhf_dagster.replication.probes.scoring import gold_scores, last_round, proxy_scores


def accuracy_on_new_pairs(loop: LoopFolder, pairs: int) -> dict[str, Any]:
    """The last reward model on pairs of responses of the policy that each round sampled from, to test prompts.

    `rounds` has a mapping for each round, with lists in the order of its pairs: `agrees_with_gold` and
    `agrees_with_people`, 1 where the reward model prefers the response that the gold judge, or one simulated
    annotator, prefers, 0 where it prefers the other one, and 1/2 where either ties; and `strength`, that of the
    annotator's preference: 1 (much better), 0.5 (slightly), 0 (a tie, or none that could be decided).
    """
    reward_model = made_model(loop, "reward_model", last_round(loop, "reward_model"))
    return {"rounds": [_on_round(loop, key, reward_model, pairs) for key in loop.rounds_with("round_manifest")]}


def _on_round(loop: LoopFolder, key: str, reward_model: Checkpoint, pairs: int) -> dict[str, Any]:
    manifest = loop.json("round_manifest", key) or {}
    responses = _responses(loop, loop.policy(manifest["behaviour_policy"]), key, pairs)
    proxy = _first_is_better(proxy_scores(loop, reward_model, responses))
    people, strength = _judged(loop, responses)
    return {
        "agrees_with_gold": _agreement(proxy, _first_is_better(gold_scores(loop, responses))),
        "agrees_with_people": _agreement(proxy, people),
        "strength": strength,
    }


def _responses(loop: LoopFolder, policy: Checkpoint, key: str, pairs: int) -> pd.DataFrame:
    """Rows of COMPLETIONS, of which each two make a pair: one pair for every prompt, then a second one, and so on."""
    prompts = test_prompts(loop)
    turns = math.ceil(pairs / len(prompts))
    seed = loop.config.stage_seed("probe of the reward model", key)
    sampled = sample_policy(loop, policy, prompts, seed=seed, samples_per_prompt=2 * turns)
    places = np.arange(len(sampled)).reshape(len(prompts), turns, 2).swapaxes(0, 1).reshape(-1, 2)[:pairs]
    return sampled.iloc[places.ravel()].reset_index(drop=True)


def _first_is_better(scores: np.ndarray) -> np.ndarray:
    """1, -1 or (a tie) 0 for each pair, shape [n], of scores [2n]."""
    return np.sign(scores[::2] - scores[1::2])


def _agreement(one: np.ndarray, other: np.ndarray) -> list[float]:
    return [float(value) for value in (1 + one * other) / 2]


def _judged(loop: LoopFolder, responses: pd.DataFrame) -> tuple[np.ndarray, list[float]]:
    """What one annotator, by turns, says of each pair: as :func:`_first_is_better`, and how strongly."""
    people, texts = loop.annotators(), responses["text"].tolist()
    judgments = [
        people[place % len(people)].judge(prompt, texts[2 * place : 2 * place + 2], "pair", f"probe {place}")
        for place, prompt in enumerate(responses["prompt"][::2])
    ]
    ranks = [judgment.ranks or [1, 1] for judgment in judgments]
    strengths = [float(judgment.strength or 0.0) for judgment in judgments]
    return np.array([np.sign(second - first) for first, second in ranks], dtype=np.float64), strengths
