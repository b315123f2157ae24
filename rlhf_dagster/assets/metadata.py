"""The metadata that assets of the loop share: data versions, links, figures, tables and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.pages.server import PAGES_PATH
from rlhf_dagster.records.ids import content_hash

PAGE_IS_ELSEWHERE = (
    "All of it is on the page `{page}`, for a browser: where a server of the loop's pages runs "
    "(`python -m rlhf_dagster.pages.server`) and `automation.pages_url` is its address, a link to it stands here."
)


def table_result(
    frame: pd.DataFrame, version_columns: list[str], **metadata: Any
) -> dg.MaterializeResult[pd.DataFrame]:
    """A table whose data version is the hash of some columns: making the same rows again leaves downstream fresh."""
    rows = sorted(map(str, frame[version_columns].itertuples(index=False, name=None)))
    return dg.MaterializeResult(value=frame, metadata=metadata, data_version=dg.DataVersion(content_hash(*rows)))


def label_store_link(loop: LoopFolder, round_key: str, purpose: str) -> dict[str, dg.UrlMetadataValue]:
    """Where annotators find a round's tasks, in a store that has pages."""
    addresses = loop.label_pages(round_key, purpose)
    return {"label_studio": dg.MetadataValue.url(addresses[-1])} if addresses else {}


def page_shown(loop: LoopFolder, key: str, markdown: str) -> dg.MetadataValue:
    """A link to a page of the loop where a server of its pages is known, else what it says, which any UI shows.

    That of a loop in a folder of its own begins with no host: `rlhf ui` serves it under whatever name it is reached by.
    """
    if address := loop.config.automation.pages_url:
        return dg.MetadataValue.url(f"{address}/{key}")
    if (loop.root / CONFIG_FILE).is_file():
        return dg.MetadataValue.url(f"{PAGES_PATH}/{key}")
    return dg.MetadataValue.md(f"{PAGE_IS_ELSEWHERE.format(page=f'{loop.store.address}/{key}')}\n\n{markdown}")


def numbers(figures: Mapping[str, float | None]) -> dict[str, dg.FloatMetadataValue]:
    """Figures as the UI lists and plots them, by round, to four significant digits; the files keep all digits."""
    there = {name: value for name, value in figures.items() if value is not None}
    return {name: dg.MetadataValue.float(float(f"{value:.4g}")) for name, value in there.items()}


def win_rates_table(rates: Sequence[Mapping[str, Any]]) -> dg.MarkdownMetadataValue:
    """Win rates of the round's policy, a line for each judge and opponent; few columns fit the UI's table."""
    return markdown_table(
        [
            {
                "judge": rate["judge"],
                "against": rate["against"],
                "win rate (95% interval)": rate_cell(rate),
                "at equal length": equal_length_cell(rate),
            }
            for rate in rates
        ]
    )


def equal_length_cell(rate: Mapping[str, Any]) -> str:
    """The length-controlled win rate, where it is known."""
    controlled = rate.get("length_controlled") or {}
    if controlled.get("value") is None:
        return "not known"
    return f"{controlled['value']:.1%} ({controlled['low']:.1%} to {controlled['high']:.1%})"


def rate_cell(rate: Mapping[str, Any]) -> str:
    """A win rate with its interval and its sample size."""
    if rate["value"] is None:
        return "no decided judgment"
    return f"{rate['value']:.1%} ({rate['low']:.1%} to {rate['high']:.1%}) of {rate['n']}"


def model_result(result: StageResult, shown_metrics: Sequence[str] = (), **metadata: Any) -> dg.MaterializeResult[Any]:
    """A kept model with its last numbers, all of them or ``shown_metrics``, and a picture of its training curves."""
    checkpoint = result.checkpoint
    shown: dict[str, Any] = {
        "model_id": checkpoint.model_id,
        "checkpoint": dg.MetadataValue.path(checkpoint.address),
    }
    if result.ray_job:
        shown["ray_job"] = result.ray_job
    if result.logs:
        shown["logs"] = dg.MetadataValue.path(str(result.logs))
    if result.curves:
        shown["training_curves"] = curves_picture(result.curves)
    if result.usage:
        shown |= {f"usage_{name}": value for name, value in numbers(result.usage).items()}
    if result.warnings:
        shown["warnings"] = as_list(result.warnings)
    shown |= numbers({name: result.metrics[name] for name in shown_metrics or result.metrics})
    return dg.MaterializeResult(
        value=checkpoint, metadata=shown | metadata, data_version=dg.DataVersion(checkpoint.digest)
    )


def curves_picture(curves: dict[str, list[float]]) -> dg.MarkdownMetadataValue:
    """The curves as a small picture inside Markdown, which the UI shows."""
    from rlhf_dagster.pages.plots import markdown_image, training_curves

    return dg.MetadataValue.md(markdown_image(training_curves(curves), "training curves"))


def as_list(sentences: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Sentences as a Markdown list."""
    return dg.MetadataValue.md("\n".join(f"- {sentence}" for sentence in sentences))


def markdown_table(rows: Sequence[Mapping[Any, Any]]) -> dg.MarkdownMetadataValue:
    """Rows as a Markdown table with the first row's keys as its head."""
    if not rows:
        return dg.MetadataValue.md("none")
    lines = [list(map(str, rows[0])), ["---"] * len(rows[0]), *(list(map(_cell, row.values())) for row in rows)]
    return dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cell(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
