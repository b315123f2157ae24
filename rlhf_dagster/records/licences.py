"""Under which licence something can be given away: what the licences of what it was made from leave open.

Licences are read by their name, in the identifiers of the Hugging Face Hub; nobody has read their text. A licence that
asks for more than a mention of its source binds what is made from it, so that the policy must have the same one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_dagster.errors import UserError

PERMISSIVE = {
    "afl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsl-1.0",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc0-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "isc",
    "mit",
    "odc-by",
    "pddl",
    "unlicense",
    "wtfpl",
    "zlib",
}
"""Licences that let what is made from a work have another one."""
OURS = "apache-2.0"
"""The licence of this package, whose grammars write the texts of the embedded tasks."""
NO_LICENCE = {"", "other", "unknown"}
"""What stands in cards in the place of a licence that one could know."""
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True)
class LicensedSource:
    """Something that a model or a data set was made from."""

    what: str
    """As sentences name it."""
    licence: str
    """Its identifier; empty where it is not known."""
    name: str = ""
    """On the Hub; empty for what is not there."""


def agreed_licence(sources: Sequence[LicensedSource], given: str = "") -> str:
    """The licence for what is made from ``sources``; ``given`` is the one that a person has named.

    Raises:
        UserError: a source's licence is not known and none is given, two licences exclude each other, or the one given
            is not the one that binds.
    """
    require_identifier(given)
    unknown = [source.what for source in sources if not source.licence]
    if unknown and not given:
        raise UserError(
            f"The licence of {' and of '.join(unknown)} is not known; find it out, and say with --license under which "
            "one the model may be given away."
        )
    binding = {source.licence: source for source in sources if source.licence and source.licence not in PERMISSIVE}
    if len(binding) > 1:
        both = " and ".join(f"{source.what} under {licence}" for licence, source in sorted(binding.items()))
        raise UserError(f"The model cannot be given away: it was made from {both}, and can have one licence alone.")
    if not binding:
        return given or next(source.licence for source in sources)
    licence, source = next(iter(binding.items()))
    if given not in ("", licence):
        raise UserError(
            f"--license {given}: {source.what} is under {licence}, which binds what is made from it; leave it out."
        )
    return licence


def require_identifier(given: str) -> None:
    """Raise UserError where ``given``, unless it is empty, is no identifier of a licence."""
    if given and (given in NO_LICENCE or not _IDENTIFIER.fullmatch(given)):
        raise UserError(f"--license {given}: give the identifier of a licence, such as apache-2.0 or cc-by-4.0.")
