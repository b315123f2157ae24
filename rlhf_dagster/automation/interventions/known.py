"""All jobs by which a person steps in."""

import dagster as dg

from rlhf_dagster.automation.interventions.decisions import approving, refusing, rolling_back
from rlhf_dagster.automation.interventions.going_on import resuming, stopping
from rlhf_dagster.automation.interventions.rounds_and_data import importing, opening, retiring
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.records.loop_names import ALONE, LoopNames

INTERVENTIONS = (opening, approving, refusing, rolling_back, stopping, resuming, importing, retiring)


def intervention_jobs(config: LoopConfig, names: LoopNames = ALONE) -> list[dg.JobDefinition]:
    """The jobs of one loop."""
    return [one.of(names, config) for one in INTERVENTIONS]
