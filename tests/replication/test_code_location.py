"""A replication in Dagster: cells by claim and seed, and the page about those that are finished."""

from typing import Any

import dagster as dg
import pytest
from smoke_claim import FREE, PLAIN, Smoke

from rlhf_dagster.replication.definitions import FOLDER_VARIABLE, build_replication, replication_definitions
from rlhf_dagster.replication.known import CLAIMS
from rlhf_dagster.replication.records import read_replication


@pytest.fixture
def code_location(begun: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """On the folder in which the loops of the seed 0 are finished."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(begun[0].out))
    return build_replication([Smoke(PLAIN, FREE)])


def materialise(found: dg.Definitions, asset: str, **options: Any) -> dg.ExecuteInProcessResult:
    return found.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[dg.AssetKey(asset)], raise_on_error=False, **options
    )


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (made,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in made.materialization.metadata.items()}


def test_a_cell_measures_what_is_finished(code_location: dg.Definitions) -> None:
    key = dg.MultiPartitionKey({"claim": "C0", "seed": "0"})
    result = materialise(code_location, "claim_figures", partition_key=key)
    assert result.success
    found = metadata_of(result)
    assert found["loops"] == 2
    assert [set(kl) for kl in found["figures"]["kl"]] == [{"value", "low", "high", "n"}] * 2


def test_the_page_is_about_the_finished_cells(code_location: dg.Definitions, begun: tuple[Any, Any]) -> None:
    result = materialise(code_location, "replication_page")
    assert result.success
    assert metadata_of(result)["verdict_C0"] == "reproduced"
    assert read_replication(begun[0].out)["seeds"] == [0]


def test_without_a_finished_cell_the_page_says_so(
    code_location: dg.Definitions, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path_factory.mktemp("empty")))
    result = materialise(code_location, "replication_page")
    assert not result.success
    failure = result.filter_events(lambda event: event.is_step_failure)[0].step_failure_data
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == (
        "No claim has a seed whose loops are finished; materialise claim_figures first."
    )


def test_the_module_that_dagster_opens_has_a_cell_for_each_claim() -> None:
    job = replication_definitions.resolve_job_def("replicate_cells")
    assert job.partitions_def is not None
    assert len(job.partitions_def.get_partition_keys()) == 20 * len(CLAIMS)
