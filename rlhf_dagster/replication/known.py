"""The claims by name."""

from collections.abc import Sequence

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim

CLAIMS: Sequence[Claim] = ()
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
