"""How assets of the loop are declared, and the metadata they share."""

import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.rounds import rounds
from rlhf_dagster.common.progress import Progress
from rlhf_dagster.compute.run import TrainingDied, TrainingFailed
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.formats import prepare_store
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import require_not_deleted
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.pages.server import PAGES_VARIABLE
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.schemas import meaning
from rlhf_dagster.resources.io_managers import TABLES
from rlhf_dagster.training.runtime.resuming import TrainingStopped

GPU_POOL = "gpu"
STOPPED_TAG = "rlhf/stopped"
"""Tag of runs that the stop cord has ended."""
RETRY_AFTER = 5
"""Seconds before a training whose process died is taken up again."""
JSON: dict[str, Any] = {"kinds": {"json"}, "io_manager_key": "json"}
MODEL: dict[str, Any] = {"kinds": {"huggingface"}, "io_manager_key": "models"}


def loop_asset(
    group: str, *, by_round: bool = False, gpu: bool = False, code_version: str = "1", **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """``dg.asset`` with the loop's conventions: io manager and schema by kind of output, round partition, GPU pool."""

    def declare(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        name = options.get("name", compute.__name__)
        schema = TABLES.get(name)
        kinds = {"parquet"} if schema else options.pop("kinds")
        return dg.asset(
            group_name=group,
            kinds=kinds | ({"torch"} if gpu else set()),
            io_manager_key="tables" if schema else options.pop("io_manager_key"),
            partitions_def=rounds if by_round else None,
            pool=GPU_POOL if gpu else None,
            code_version=code_version,
            metadata={"dagster/column_schema": _column_schema(name)} if schema else None,
            **options,
        )(_one_sentence(compute))

    return declare


def after_policies(
    group: str, *, deps: Sequence[str] = (), **options: Any
) -> Callable[[Callable[..., Any]], Callable[[Sequence[str]], dg.AssetsDefinition]]:
    """As :func:`loop_asset`, of a round, for what reads its policies. Which those are, the loop's config says.

    What is decorated becomes a function from the names of the policies' assets to the asset. They are no inputs, since
    an asset reads those alone that the round is judged by.
    """

    def wait(compute: Callable[..., Any]) -> Callable[[Sequence[str]], dg.AssetsDefinition]:
        return lambda policies: loop_asset(group, by_round=True, deps=[*deps, *policies], **options)(compute)

    return wait


def round_check(
    asset: dg.AssetsDefinition | str,
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """A blocking check of one round of an asset; without partitions it would be handed those of all rounds."""

    def declare(compute: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        with warnings.catch_warnings():
            # Partitions of checks are in preview.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.asset_check(asset=asset, blocking=True, partitions_def=rounds)(compute)

    return declare


def _one_sentence(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Where the user can mend the cause, the asset fails with one sentence and without a stack trace.

    An asset of a stopped loop does not start. A training whose process died is taken up again from its last state.
    """

    @functools.wraps(compute)
    def run(*args: Any, **kwargs: Any) -> Any:
        loop: LoopFolder = kwargs["loop"]
        try:
            prepare_store(loop.store)
            _require_going(loop)
            _require_round(loop)
            return compute(*args, **kwargs)
        except (UserError, TrainingFailed) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        except TrainingStopped as stopped:
            _mark_stopped()
            raise dg.Failure(str(stopped), allow_retries=False) from None
        except TrainingDied as died:
            raise _retry(died, kwargs["compute"].retries) from None

    return run


def _require_going(loop: LoopFolder) -> None:
    if stop := read_stop(loop.store):
        raise TrainingStopped(stop.sentence)


def _require_round(loop: LoopFolder) -> None:
    """Raise UserError where the asset's round was deleted: the UI lets people add its partition again."""
    context = dg.AssetExecutionContext.get()
    if context.has_partition_key:
        require_not_deleted(loop, context.partition_key)


def _mark_stopped() -> None:
    """Tell the sensors that this run did not fail: it may be launched again once the loop goes on."""
    context = dg.AssetExecutionContext.get()
    context.instance.add_run_tags(context.run.run_id, {STOPPED_TAG: "true"})


def _retry(died: TrainingDied, retries: int) -> Exception:
    context = dg.AssetExecutionContext.get()
    context.log.warning(str(died))
    if context.retry_number >= retries:
        return dg.Failure(f"{died}\nIt was tried {retries + 1} times; its last state is kept for the next.")
    return dg.RetryRequested(max_retries=retries, seconds_to_wait=RETRY_AFTER)


def _column_schema(name: str) -> dg.TableSchema:
    return dg.TableSchema(
        [dg.TableColumn(column.name, str(column.type), description=meaning(column)) for column in TABLES[name]]
    )


def stage_progress(context: dg.AssetExecutionContext) -> Progress:
    """Progress as lines in the run's log. Each line also checks whether the run is being cancelled.

    Dagster's signal alone is not enough: where it arrives while Python collects garbage, its exception is dropped.
    """

    def say(text: str) -> None:
        context.log.info(text)
        run = context.instance.get_run_by_id(context.run.run_id)
        if run is not None and run.status == dg.DagsterRunStatus.CANCELING:
            raise dg.DagsterExecutionInterruptedError

    return Progress(context.asset_key.path[-1], say)


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


def page_link(loop: LoopFolder, key: str) -> dg.MetadataValue:
    """A link to a page of the loop where `rlhf ui` serves it, else where it is kept."""
    if address := os.environ.get(PAGES_VARIABLE):
        return dg.MetadataValue.url(f"{address}/{key}")
    return dg.MetadataValue.path(f"{loop.store.address}/{key}")


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
