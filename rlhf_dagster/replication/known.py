"""The claims by name."""

from collections.abc import Sequence

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim
from rlhf_dagster.replication.claims import (
    alignment_tax,
    choosing_comparisons,
    copying,
    direct_preferences,
    few_labels,
    held_out_annotators,
    heuristics,
    online_labels,
    over_optimisation,
    reward_models,
    small_aligned_model,
    supervised_start,
    vague_instructions,
)

CLAIMS: Sequence[Claim] = (
    few_labels.CLAIM,
    supervised_start.CLAIM,
    copying.CLAIM,
    heuristics.CLAIM,
    vague_instructions.CLAIM,
    over_optimisation.CLAIM,
    online_labels.CLAIM,
    small_aligned_model.CLAIM,
    held_out_annotators.CLAIM,
    alignment_tax.CLAIM,
    direct_preferences.CLAIM,
    choosing_comparisons.CLAIM,
    reward_models.CLAIM,
)
"""All claims, in the order of their numbers."""


def find_claims(names: Sequence[str]) -> list[Claim]:
    """The claims of these names, in their own order, each once; all of them for no name.

    Raises UserError with all names where there is no such claim.
    """
    known = {claim.name: claim for claim in CLAIMS}
    wanted = [name.upper() for name in names]
    for given, name in zip(names, wanted, strict=True):
        if name not in known:
            raise UserError(f"There is no claim {given}; choose among {', '.join(known)}.")
    return [claim for name, claim in known.items() if not wanted or name in wanted]
