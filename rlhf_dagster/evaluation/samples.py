"""The responses under evaluation, side by side: one for each prompt and role."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, POLICY, REWARD_MODEL, SFT
from rlhf_dagster.records.chats import Prompt, prompts_of

ROLES = (POLICY, SFT, BEHAVIOUR)

Scores = Mapping[str, Mapping[str, Sequence[float]]]
"""scores[judge][role] holds one score for each prompt, in the order of :func:`responses_by_role`."""


@dataclass(frozen=True)
class ShownSample:
    """Responses to one prompt, one for each role, with ``scores[judge][role]``.

    ``margin`` is the reward model's score of the policy's response minus that of SFT's, and ``chosen`` says why the
    prompt is shown: ``best`` or ``worst`` margin, or ``random``.
    """

    chosen: str
    margin: float
    prompt: Prompt
    responses: dict[str, str]
    scores: dict[str, dict[str, float]]


def responses_by_role(completions: pd.DataFrame, roles: Sequence[str] = ROLES) -> dict[str, pd.DataFrame]:
    """The rows of each role (``policy``, ``sft``, ``behaviour``), all in the prompt order of the first role's rows.

    ``completions`` has the columns of records.schemas.COMPLETIONS and ``role``. Raises UserError unless every role
    answers every prompt exactly once.
    """
    order = completions.loc[completions["role"] == roles[0], "prompt_id"].tolist()
    if not order:
        raise UserError(f"The evaluation has no responses of the {roles[0]}; sample it on the held-out prompts first.")
    return {role: _rows_of(completions, role, order) for role in roles}


def choose_samples(completions: pd.DataFrame, scores: Scores, seed: int, n: int = 8) -> list[ShownSample]:
    """``n`` prompts to look at: three in eight with the best margin, as many with the worst, the rest at random."""
    rows = responses_by_role(completions)
    check_scores(scores, len(rows[POLICY]))
    reward = scores[REWARD_MODEL]
    margins = [own - other for own, other in zip(reward[POLICY], reward[SFT], strict=True)]
    ranked = sorted(range(len(margins)), key=lambda index: (-margins[index], index))
    extremes = min(n * 3 // 8, len(ranked) // 3)
    best, middle, worst = ranked[:extremes], ranked[extremes : len(ranked) - extremes], ranked[len(ranked) - extremes :]
    picked = random.Random(seed).sample(middle, min(n - 2 * extremes, len(middle)))
    groups = {"best": best, "worst": worst[::-1], "random": picked}
    return [_sample(chosen, index, margins, rows, scores) for chosen, group in groups.items() for index in group]


def _rows_of(completions: pd.DataFrame, role: str, order: Sequence[str]) -> pd.DataFrame:
    frame = completions[completions["role"] == role].set_index("prompt_id", drop=False)
    if not frame.index.is_unique or set(frame.index) != set(order):
        wanted = f"each of {len(order)} prompts needs one"
        raise UserError(f"The evaluation has {len(frame)} responses of {role} where {wanted}; sample it again.")
    return frame.loc[list(order)].reset_index(drop=True)


def check_scores(scores: Scores, prompts: int) -> None:
    """Raises UserError unless the reward model scored, and every judge gave each role a score for each prompt."""
    if REWARD_MODEL not in scores:
        raise UserError(f"The evaluation has no scores of the {REWARD_MODEL}; score every role's responses with it.")
    for judge, given in scores.items():
        for role in ROLES:
            scored = len(given.get(role, ()))
            if scored != prompts:
                raise UserError(f"The {judge} scored {scored} of {prompts} responses of {role}; score all of them.")


def _sample(
    chosen: str, index: int, margins: Sequence[float], rows: Mapping[str, pd.DataFrame], scores: Scores
) -> ShownSample:
    return ShownSample(
        chosen=chosen,
        margin=float(margins[index]),
        prompt=prompts_of(rows[POLICY].iloc[[index]])[0],
        responses={role: str(frame["text"].iloc[index]) for role, frame in rows.items()},
        scores={judge: {role: float(given[role][index]) for role in ROLES} for judge, given in scores.items()},
    )
