"""The page about the loop's folder is what the schemas say."""

from pathlib import Path

import pyarrow as pa
import pytest

from rlhf_dagster.records import schemas
from rlhf_dagster.records.kinds import ALL_KINDS
from rlhf_dagster.records.schemas import meaning
from rlhf_dagster.records.text import TABLES_ON_DISK, files_page

SCHEMAS = {name: value for name, value in vars(schemas).items() if isinstance(value, pa.Schema)}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_says_what_it_means(name: str) -> None:
    assert [column.name for column in SCHEMAS[name] if not meaning(column).strip()] == []


def test_a_column_without_a_description_is_seen() -> None:
    assert meaning(pa.field("bare", pa.string())) == ""


def test_every_table_is_on_the_page() -> None:
    assert {id(table.schema) for table in TABLES_ON_DISK} == {id(schema) for schema in SCHEMAS.values()}
    sections = files_page().split("\n### ")[1:]
    for table, section in zip(TABLES_ON_DISK, sections, strict=True):
        assert section.startswith(table.title + "\n")
        for column in table.schema:
            assert f"\n| `{column.name}` | " in section
            assert f" | {meaning(column)} |" in section


def test_every_kind_of_label_is_on_the_page_with_the_form_of_its_answer() -> None:
    for kind in ALL_KINDS.values():
        assert f'| `{kind.name}` | {kind.decides} | `{{"{kind.key}": ' in files_page()


def test_no_description_breaks_its_row() -> None:
    assert not [column.name for schema in SCHEMAS.values() for column in schema if "|" in meaning(column)]


def test_the_page_in_the_repository_is_the_code_s() -> None:
    page = Path(__file__).parents[2] / "docs" / "files.md"
    if not page.exists():
        pytest.skip("docs/files.md is not there; `make docs` writes it")
    assert page.read_text(encoding="utf-8").strip() == files_page().strip()
