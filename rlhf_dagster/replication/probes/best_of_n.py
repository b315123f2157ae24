"""What the best of n samples of SFT by the reward model is worth, for several n."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_dagster.common.intervals import mean_interval
from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.replication.probes.models import newest, reward_scores
from rlhf_dagster.replication.probes.responses import answered_prompts


def best_of_n(loop: LoopFolder, n: Sequence[int], prompts: int) -> dict[str, Any]:
    """For each of ``n``: the KL in nats, and the gold and the reward model's score over those of all samples.

    At most ``prompts`` are answered, with as many samples each as the largest n, which the others must divide: these
    give a smaller n several bests, whose mean counts.
    """
    from rlhf_dagster.training.sampling.sample import sample

    sizes, asked = sorted(n), prompts_of(answered_prompts(loop).head(prompts))
    most = sizes[-1]
    if wrong := [size for size in sizes if most % size]:
        raise UserError(f"best_of_n: {wrong[0]} does not divide {most}; give sizes that divide the largest one.")
    config, seed = loop.config, loop.config.stage_seed("best of n")
    drawn = sample(newest(loop, "sft_checkpoint").folder, asked, config.sampling, seed, most, compute=config.compute)
    repeated = [prompt for prompt in asked for _ in range(most)]
    texts = [one.text for one in drawn]
    proxy = reward_scores(loop, repeated, texts).reshape(-1, most)
    gold = np.array(list(map(loop.task.gold_score, map(str, repeated), texts))).reshape(-1, most)
    return {
        "n": sizes,
        "kl": [best_of_n_kl(size) for size in sizes],
        "gold": [mean_interval(_of_best(gold, proxy, size) - gold.mean(axis=1)).as_dict() for size in sizes],
        "proxy": [mean_interval(_of_best(proxy, proxy, size) - proxy.mean(axis=1)).as_dict() for size in sizes],
    }


def _of_best(values: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """The mean value (shape [P]) of the best by ``scores`` of each n samples; both have the shape [P, N]."""
    grouped, ranked = values.reshape(len(values), -1, n), scores.reshape(len(scores), -1, n)
    best = ranked.argmax(axis=2)[..., None]
    found: np.ndarray = np.take_along_axis(grouped, best, axis=2)[..., 0].mean(axis=1)
    return found
