"""The loop's pages as Markdown, for the UI of a deployment that serves no pages: what is decided on, without the rest.

Texts of models, prompts and people stand in it as text: they begin no list, table, link or tag.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rlhf_dagster.evaluation.standing import Standing
from rlhf_dagster.pages.report import RULE_NAMES, count, decimals, interval, percent, turns
from rlhf_dagster.pages.rounds import VERDICTS, RoundsPage, day

if TYPE_CHECKING:
    from jinja2 import Environment

    from rlhf_dagster.evaluation.samples import ShownSample

NEWEST = 10
"""Rounds in the Markdown of the page of rounds, which Dagster keeps each time that it is written."""
SHOWN_ROLES = {"sft": "SFT", "policy": "Policy"}
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&#])")
_FIRST = re.compile(r"^([-+=]|\d+(?=[.)]))")
"""What would begin a list or a heading."""


def report_markdown(report: Mapping[str, Any], samples: Sequence["ShownSample"], standing: Standing) -> str:
    """What became of the policy, why, and one sample for each reason to show one; takes what `render_report` takes."""
    shown = {sample.chosen: asdict(sample) | {"turns": turns(sample.prompt)} for sample in reversed(samples)}
    template = _templates().get_template("report.md.j2")
    return template.render(
        report=report, standing=standing, rule_names=RULE_NAMES, samples=list(shown.values())[::-1], roles=SHOWN_ROLES
    )


def rounds_markdown(page: RoundsPage) -> str:
    """What waits for whom, the champion, and the newest rounds."""
    return _templates().get_template("rounds.md.j2").render(page=page, rounds=page.rounds[:NEWEST], verdicts=VERDICTS)


def as_text(text: str) -> str:
    """One line, in which nothing is markup."""
    escaped = _MARKUP.sub(r"\\\1", " ".join(text.split()))
    return _FIRST.sub(lambda found: found[0] + "\u200b" if found[0].isdigit() else "\\" + found[0], escaped)


def _share(rate: Mapping[str, Any] | None) -> str:
    return f"{percent(rate['value'], 1)} ({interval(rate, scale=100)}, n {count(rate['n'])})" if rate else "–"


def _templates() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - what it makes is Markdown, which `as_text` escapes for
        loader=PackageLoader("rlhf_dagster.pages", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": as_text, "share": _share, "num": decimals, "count": count, "day": day}
    return environment
