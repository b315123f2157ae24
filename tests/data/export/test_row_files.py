import csv
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_dagster.data.export.row_files import rows_to
from rlhf_dagster.data.reading.known import open_source
from rlhf_dagster.errors import UserError

COLUMNS = {"prompt": pa.string(), "ranks": pa.list_(pa.int32()), "at": pa.timestamp("us", tz="UTC"), "n": pa.float64()}
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROWS = [
    {"prompt": 'one, "two"\nthree\u2028four', "ranks": [1, 2], "at": AT, "n": 0.5},
    {"prompt": "", "ranks": None, "at": None, "n": None},
]


def write(path: Path) -> None:
    with rows_to(path, COLUMNS) as row:
        for one in ROWS:
            row(one)


def as_json(path: Path) -> list[dict]:
    if path.name.endswith(".json"):
        return json.loads(path.read_text(encoding="utf-8"))
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in data.decode().split("\n") if line]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.json"])
def test_json_holds_what_is_said_and_no_gaps(name: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    first, second = as_json(tmp_path / name)
    assert first == ROWS[0] | {"at": "2026-01-02T03:04:05+00:00"}
    assert second == {"prompt": ""}
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "separator"), [("out.csv", ","), ("out.tsv", "\t")])
def test_a_table_of_text_has_lists_as_json(name: str, separator: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with (tmp_path / name).open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file, delimiter=separator)
    assert first == {"prompt": ROWS[0]["prompt"], "ranks": "[1, 2]", "at": "2026-01-02T03:04:05+00:00", "n": "0.5"}
    assert second == dict.fromkeys(COLUMNS, "")


def test_parquet_has_the_types_of_the_columns(tmp_path: Path) -> None:
    write(tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.schema == pa.schema(list(COLUMNS.items()))
    assert found.to_pylist() == ROWS


def test_no_rows_are_an_empty_table(tmp_path: Path) -> None:
    for name in ("out.json", "out.csv", "out.parquet"):
        with rows_to(tmp_path / name, COLUMNS):
            pass
    assert json.loads((tmp_path / "out.json").read_text()) == []
    assert (tmp_path / "out.csv").read_text() == "prompt,ranks,at,n\n"
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write(tmp_path / name)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_nothing_is_replaced_and_nothing_half_written_stays(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(UserError, match="exists already"), rows_to(tmp_path / "out.jsonl", COLUMNS):
        pass
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    with pytest.raises(RuntimeError), rows_to(tmp_path / "other.csv", COLUMNS) as row:
        row(ROWS[0])
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_an_ending_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end in \.jsonl"), rows_to(tmp_path / "out.xlsx", COLUMNS):
        pass


def test_values_of_another_type_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not fit into one table"), rows_to(tmp_path / "out.parquet", COLUMNS) as row:
        row({"n": "many"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl", "out.jsonl.gz", "out.json", "out.parquet"])
def test_carriage_returns_and_halves_of_characters_do_not_break_rows(name: str, tmp_path: Path) -> None:
    """Other metadata of a judgment is whatever JSON can hold, and JSON can hold one half of a character."""
    texts = ["a\rb", "\r", "c\r\nd", "half \ud800 of one"]
    with rows_to(tmp_path / name, {"prompt": pa.string(), "more": pa.list_(pa.string())}) as row:
        for text in texts:
            row({"prompt": text, "more": [text]})
    back = [row["prompt"] for _, row in open_source(tmp_path / name).rows()]
    kept = "half \ud800 of one" if "json" in name else "half \\ud800 of one"
    assert back == [*texts[:3], kept]
