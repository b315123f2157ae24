"""Ways to learn from the same labels, side by side: the policies of trainings, and best-of-n of the SFT policy."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import UNMEASURED
from rlhf_dagster.common.kl import best_of_n_kl
from rlhf_dagster.config.arms import ARMS, BEST_OF_N, Arm
from rlhf_dagster.evaluation.report import characters_longer, jsonable, policy_figures
from rlhf_dagster.evaluation.samples import Scores
from rlhf_dagster.evaluation.texts.figures import NOTHING_KNOWN, KnownAbout
from rlhf_dagster.evaluation.win_rate import POLICY, SFT, win_rate


def compare_arms(
    rows: Mapping[str, pd.DataFrame], scores: Scores, n: int, candidate: Arm, known: KnownAbout = NOTHING_KNOWN
) -> list[dict[str, Any]]:
    """Figures of each arm in ``rows``, with its win rates against SFT; only what JSON can hold.


    ``candidate`` is the arm of the policy that the gate judges, whose role is ``policy``. ``kl_bound`` is in place of a
    measured KL for best-of-``n``, whose probabilities are not known.
    """
    names = {arm.name: arm.title.format(n=n) for arm in ARMS} | {POLICY: candidate.title}
    return [_figures(role, names[role], rows, scores, n, known) for role in rows if role != SFT]


def _figures(
    role: str, name: str, rows: Mapping[str, pd.DataFrame], scores: Scores, n: int, known: KnownAbout
) -> dict[str, Any]:
    policy_id = str(rows[role]["policy_id"].iloc[0])
    longer = characters_longer(rows[role], rows[SFT])
    rates = [win_rate(given[role], given[SFT], judge, SFT, longer).as_dict() for judge, given in scores.items()]
    figures = policy_figures(policy_id, rows[role], scores, role, known) | {
        "role": role,
        "name": name,
        "kl_bound": None,
    }
    if role == BEST_OF_N.name:
        figures |= {"kl": UNMEASURED.as_dict(), "kl_bound": best_of_n_kl(n)}
    return jsonable(figures | {"win_rates": rates})
