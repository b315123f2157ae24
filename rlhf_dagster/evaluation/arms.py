"""Ways to learn from the same labels, side by side: PPO, DPO, and best-of-n of the SFT policy."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import UNMEASURED
from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.config.arms import ARMS, BEST_OF_N
from rlhf_dagster.evaluation.report import characters_longer, jsonable, policy_figures
from rlhf_dagster.evaluation.samples import Scores
from rlhf_dagster.evaluation.texts.figures import NOTHING_KNOWN, KnownAbout
from rlhf_dagster.evaluation.win_rate import SFT, win_rate


def compare_arms(
    rows: Mapping[str, pd.DataFrame], scores: Scores, n: int, known: KnownAbout = NOTHING_KNOWN
) -> list[dict[str, Any]]:
    """Figures of PPO's policy and of each arm in ``rows``, with its win rates against SFT; only what JSON can hold.

    ``kl_bound`` is in place of a measured KL for best-of-``n``, whose probabilities are not known.
    """
    return [_figures(role, rows, scores, n, known) for role in rows if role != SFT]


def _figures(role: str, rows: Mapping[str, pd.DataFrame], scores: Scores, n: int, known: KnownAbout) -> dict[str, Any]:
    policy_id = str(rows[role]["policy_id"].iloc[0])
    longer = characters_longer(rows[role], rows[SFT])
    rates = [win_rate(given[role], given[SFT], judge, SFT, longer).as_dict() for judge, given in scores.items()]
    names = {arm.role: arm.title.format(n=n) for arm in ARMS}
    figures = policy_figures(policy_id, rows[role], scores, role, known) | {
        "role": role,
        "name": names[role],
        "kl_bound": None,
    }
    if role == BEST_OF_N.role:
        figures |= {"kl": UNMEASURED.as_dict(), "kl_bound": best_of_n_kl(n)}
    return jsonable(figures | {"win_rates": rates})
