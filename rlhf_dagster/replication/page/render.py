"""All claims of a replication on one self-contained HTML page: inline style, plots as SVG, no script, no link out."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf_dagster.pages.report import count, decimals, percent
from rlhf_dagster.pages.rounds import day
from rlhf_dagster.replication.base import PILOT_SEED, Claim
from rlhf_dagster.replication.page.drawing import inline_svg
from rlhf_dagster.replication.page.rows import common_settings, criterion_rows, figure_rows, variant_rows

CLASSES = {"reproduced": "yes", "not reproduced": "no", "not decided": "open", "failed": "failed"}
"""Of the verdicts, in the order in which the headline counts them."""
SHOWN_OUTCOMES = {"holds": ("yes", "holds"), "fails": ("no", "does not hold"), "open": ("open", "open")}


def render_replication(record: Mapping[str, Any], plots: Mapping[str, str]) -> str:
    """The page for what `replication.json` says (:func:`~rlhf_dagster.replication.records.read_replication`).

    ``plots`` are those of :func:`draw_claims`. Every other text is escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("rlhf_dagster.replication.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pct": percent, "num": decimals, "count": count, "day": day}
    return environment.get_template("replication.html.j2").render(
        record=record,
        headline=headline_of(record["claims"]),
        seeds=seeds_named(record["seeds"]),
        pilot=max(seed for claim in record["claims"] for seed in claim["seeds"]) >= PILOT_SEED,
        several=any(len(claim["figures"]) > 1 for claim in record["claims"]),
        alone=any(len(claim["figures"]) == 1 for claim in record["claims"]),
        classes=CLASSES,
        outcomes=SHOWN_OUTCOMES,
        claims=[
            claim
            | {
                "seeds_named": seeds_named(claim["seeds"]),
                "rows": criterion_rows(claim["criteria"]),
                "measured": figure_rows(claim["figures"]),
                "loops": variant_rows(claim["variants"]),
                "common": common_settings(claim["variants"]),
                # Made here, of numbers and of names that the code has.
                "plot": Markup(plots[claim["name"]]) if claim["name"] in plots else None,  # noqa: S704
            }
            for claim in record["claims"]
        ],
    )


def draw_claims(claims: Iterable[Claim], figures: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """The plots, by name, of the claims that have ``figures`` (of each seed, by the claim's name)."""
    return {
        claim.name: inline_svg(claim.plot(figures[claim.name]), claim.name)
        for claim in claims
        if figures.get(claim.name)
    }


def headline_of(claims: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: how many claims were reproduced, and what became of the others."""
    found = Counter(claim["verdict"] for claim in claims)
    others = [f"{found[verdict]} {verdict}" for verdict in list(CLASSES)[1:] if found[verdict]]
    rest = f"; {', '.join(others)}" if others else ""
    return f"{found['reproduced']} of {len(claims)} claim{'s' if len(claims) != 1 else ''} reproduced{rest}"


def seeds_named(seeds: Sequence[int]) -> str:
    """``seed 0``, ``seeds 0 to 4``, or ``seeds 0, 2 and 7``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"seeds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
