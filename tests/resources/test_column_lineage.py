from rlhf_dagster.assets.graph import loop_assets
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.records.loop_names import ALONE
from rlhf_dagster.resources.column_lineage import COLUMN_SOURCES, column_lineage
from rlhf_dagster.resources.io_managers import TABLES


def test_columns_come_from_columns_that_are_there_of_tables_that_the_asset_reads() -> None:
    reads = {asset.key.path[-1]: {key.path[-1] for key in asset.dependency_keys} for asset in loop_assets(LoopConfig())}
    for table in COLUMN_SOURCES:
        for column, sources in column_lineage(table, ALONE).deps_by_column.items():
            assert column in TABLES[table].names, f"{table}.{column}"
            for source in sources:
                (parent,) = source.asset_key.path
                assert source.column_name in TABLES[parent].names, source
                assert table not in reads or parent in reads[table], f"{table} does not read {parent}"


def test_a_table_whose_rows_come_from_outside_has_none() -> None:
    assert column_lineage("prompts", ALONE).deps_by_column == {}
