"""The sensor that writes the round page anew after each run, and shows it in the UI."""

from datetime import datetime

import dagster as dg

from rlhf_dagster.assets.metadata import page_shown
from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.own_runs import alive_runs
from rlhf_dagster.config.automation import AutomationSettings
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.pages.server import ROUNDS_PAGE
from rlhf_dagster.records.loop_names import ALONE, LoopNames
from rlhf_dagster.resources.own_keys import with_own_resources

ROUND_PAGE = "round_page"


def page_spec(names: LoopNames = ALONE) -> dg.AssetSpec:
    """The page as an asset, which no run makes."""
    return dg.AssetSpec(
        dg.AssetKey(names.path(ROUND_PAGE)),
        deps=[dg.AssetKey(names.path("promotion"))],
        group_name=names.own("release"),
        kinds={"html"},
        description="All rounds on one page: what was sampled, labelled, trained and judged, and who waits for whom.",
    )


def page_sensor(settings: AutomationSettings, names: LoopNames = ALONE) -> dg.SensorDefinition:
    """Writes the page when a run of the loop has changed; the cursor is the time of the newest change."""

    def look(context: dg.SensorEvaluationContext, loop: dg.ResourceParam[LoopFolder]) -> dg.SensorResult:
        own = dg.RunsFilter(tags=loop.run_tag)
        newest = context.instance.get_run_records(own, limit=1, order_by="update_timestamp")
        seen = newest[0].update_timestamp.isoformat() if newest else ""
        if seen == (context.cursor or "") and loop.store.exists(ROUNDS_PAGE):
            return dg.SensorResult(skip_reason="No run has changed since the page was written.", cursor=seen)
        key = write_page(context.instance, loop)
        return dg.SensorResult(skip_reason=f"{loop.store.address}/{key} is written.", cursor=seen)

    return dg.sensor(
        name=names.own("round_page_after_runs"),
        minimum_interval_seconds=settings.poll_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes the page of all rounds anew after each run.",
    )(with_own_resources(look, names))


def write_page(instance: dg.DagsterInstance, loop: LoopFolder) -> str:
    """Write the page, report it to Dagster, where the asset shows it, and return its key."""
    from rlhf_dagster.loop.round_page import write_round_page
    from rlhf_dagster.pages.markdown import rounds_markdown

    running = [_sentence(record) for record in alive_runs(instance, loop)]
    page = write_round_page(loop, open_rounds(instance, loop), running=running)
    shown = page_shown(loop, ROUNDS_PAGE, rounds_markdown(page))
    instance.report_runless_asset_event(dg.AssetMaterialization(loop.names.path(ROUND_PAGE), metadata={"page": shown}))
    return ROUNDS_PAGE


def _sentence(record: dg.RunRecord) -> str:
    run = record.dagster_run
    where = f" of {key}" if (key := run.tags.get("dagster/partition")) else ""
    if record.start_time is None:
        return f"{run.job_name}{where} waits for its turn"
    return f"{run.job_name}{where}, since {datetime.fromtimestamp(record.start_time):%H:%M}"
