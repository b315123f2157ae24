"""The resource `compute` decides where a loop's stages run."""

import dagster as dg
import pytest
from loops import ROUND

from rlhf_dagster.build import build_loop
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.resources.compute import Compute


def test_it_has_every_setting_with_its_description() -> None:
    settings = ComputeSettings(threads=2, device="cpu", processes=2, launch="process")
    assert Compute.of(settings).model_dump() == settings.model_dump()
    described = {name: field.description for name, field in Compute.model_fields.items()}
    assert described == {name: field.description for name, field in ComputeSettings.model_fields.items()}


def test_what_cannot_be_is_one_sentence(finished) -> None:
    with pytest.raises(UserError, match="resource `compute`"):
        Compute.of(ComputeSettings()).model_copy(update={"processes": 2}).on(finished.loop)


def test_a_definition_of_ones_own_runs_the_same_loop_elsewhere(stages, copy_of) -> None:
    """The loop trains in its own process; with another resource its trainings are processes of their own."""
    runner = copy_of(stages.unjudged)
    definitions = build_loop(runner.loop.config, runner.loop.root)
    elsewhere = ComputeSettings(threads=1, device="cpu", launch="process")
    definitions = dg.Definitions(
        assets=definitions.assets, resources=dict(definitions.resources or {}) | {"compute": Compute.of(elsewhere)}
    )
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=runner.instance, asset_selection=[dg.AssetKey("reward_model")], partition_key=ROUND
    )
    (made,) = result.get_asset_materialization_events()
    shown = made.materialization.metadata
    before = runner.loop.config.compute
    assert (before.launch, runner.loop.config.reward_model.epochs) == ("in_process", 1)
    assert shown["usage_seconds"].value > 0
    assert shown["model_id"].value == made.materialization.metadata["model_id"].value
