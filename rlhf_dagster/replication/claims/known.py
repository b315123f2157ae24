"""The claims by name."""

from collections.abc import Iterable

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim
from rlhf_dagster.replication.claims import (
    alignment_tax,
    choosing_comparisons,
    direct_preferences,
    few_labels,
    held_out_annotators,
    online_labels,
    over_optimisation,
    reward_models,
    small_aligned_model,
)

_MODULES = (
    few_labels,
    over_optimisation,
    online_labels,
    small_aligned_model,
    held_out_annotators,
    alignment_tax,
    direct_preferences,
    choosing_comparisons,
    reward_models,
)
CLAIMS: dict[str, Claim] = {module.CLAIM.name: module.CLAIM for module in _MODULES}
"""In the order of their numbers."""


def find_claims(names: Iterable[str] = ()) -> list[Claim]:
    """The claims of these names in the order of their numbers, each once; all where no name is given.

    Raises UserError where there is no claim of a name.
    """
    wanted = {name.upper() for name in names}
    if unknown := sorted(wanted - CLAIMS.keys()):
        raise UserError(f"There is no claim {unknown[0]}; choose from: {', '.join(CLAIMS)}.")
    return [claim for name, claim in CLAIMS.items() if name in wanted or not wanted]
