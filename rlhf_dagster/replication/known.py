"""The claims by name."""

from collections.abc import Sequence

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim
from rlhf_dagster.replication.claims.alignment_tax import TaxOfAlignment
from rlhf_dagster.replication.claims.choosing_comparisons import ChoosingComparisons
from rlhf_dagster.replication.claims.copying import Copying
from rlhf_dagster.replication.claims.direct_preferences import DirectPreferences
from rlhf_dagster.replication.claims.few_labels import FewLabels
from rlhf_dagster.replication.claims.held_out_annotators import HeldOutAnnotators
from rlhf_dagster.replication.claims.heuristics import Heuristics
from rlhf_dagster.replication.claims.online_labels import OnlineLabels
from rlhf_dagster.replication.claims.over_optimisation import OverOptimisation
from rlhf_dagster.replication.claims.reward_models import RewardModels
from rlhf_dagster.replication.claims.small_aligned_model import SmallAlignedModel
from rlhf_dagster.replication.claims.supervised_start import SupervisedStart
from rlhf_dagster.replication.claims.vague_instructions import VagueInstructions

CLAIMS: Sequence[Claim] = (
    FewLabels(),
    SupervisedStart(),
    Copying(),
    Heuristics(),
    VagueInstructions(),
    OverOptimisation(),
    OnlineLabels(),
    SmallAlignedModel(),
    HeldOutAnnotators(),
    TaxOfAlignment(),
    DirectPreferences(),
    ChoosingComparisons(),
    RewardModels(),
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
