"""Best-of-n: of n samples of SFT the one that the last reward model scores highest, for many n at once."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_dagster.common.intervals import mean_interval
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import sample_policy
from rlhf_dagster.replication.probes.responses import made_model, test_prompts
from rlhf_dagster.replication.probes.scoring import gold_scores, last_round, proxy_scores


def best_of_n_gains(loop: LoopFolder, n: Sequence[int], prompts: int) -> dict[str, Any]:
    """What best-of-n gains over SFT on test prompts, by the gold judge and by the reward model itself.

    The lists, in the order of ``n``: `kl` in nats, log n - (n - 1) / n (Stiennon et al. 2020, appendix G.3), and `gold`
    and `proxy`, means over prompts with their intervals. Every n is measured on the same samples of a prompt, as many
    as the largest n, by the mean over all sets of n of them.
    """
    sft, most = made_model(loop, "sft_checkpoint"), max(n)
    reward_model = made_model(loop, "reward_model", last_round(loop, "reward_model"))
    asked, seed = test_prompts(loop, prompts), loop.config.stage_seed("probe of best-of-n")
    samples = sample_policy(loop, sft, asked, seed=seed, samples_per_prompt=most)
    proxy, gold = (
        scores.reshape(-1, most) for scores in (proxy_scores(loop, reward_model, samples), gold_scores(loop, samples))
    )
    return {
        "n": list(n),
        "kl": [math.log(one) - (one - 1) / one for one in n],
        "gold": [mean_interval(expected_best(proxy, gold, one) - gold.mean(axis=1)).as_dict() for one in n],
        "proxy": [mean_interval(expected_best(proxy, proxy, one) - proxy.mean(axis=1)).as_dict() for one in n],
    }


def expected_best(proxy: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """Mean of ``values`` [P, N] at the highest ``proxy`` [P, N] of n of the N, over all sets of n; shape [P].

    The sample of rank r, counted from the lowest, is the best of C(r - 1, n - 1) of all C(N, n) sets (Nakano et al.
    2021, WebGPT, appendix I). Of equal proxies the first counts as the lower one.
    """
    total = proxy.shape[1]
    weights = np.array([math.comb(rank, n - 1) / math.comb(total, n) for rank in range(total)])
    order = np.argsort(proxy, axis=1, kind="stable")
    expected: np.ndarray = np.take_along_axis(values, order, axis=1) @ weights
    return expected
