"""Writing the page of a replication beside its `replication.json`, which it shows."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.replication.base import Claim
from rlhf_dagster.replication.page.render import draw_claims, render_replication
from rlhf_dagster.replication.records import read_replication

PAGE_FILE = "replication.html"
_log = logging.getLogger("rlhf_dagster.replication")


def write_replication_page(out: Path, claims: Sequence[Claim]) -> Path:
    """Write the page for what `replication.json` in the folder says, and return its path.

    A claim whose plot cannot be drawn has none.
    """
    record, path = read_replication(out), out / PAGE_FILE
    figures = {claim["name"]: claim["figures"] for claim in record["claims"]}
    plots: dict[str, str] = {}
    for claim in claims:
        plots |= _plot(claim, figures)
    write_atomically(path, render_replication(record, plots).encode())
    return path


def _plot(claim: Claim, figures: Mapping[str, Any]) -> dict[str, str]:
    try:
        return draw_claims([claim], figures)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        _log.warning("The plot of %s cannot be drawn: %s", claim.name, error)
        return {}
