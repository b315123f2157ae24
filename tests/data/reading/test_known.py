"""Files of every format as rows, and files that cannot be read as one sentence."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather

from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading import streams
from rlhf_dagster.data.reading.known import open_source
from rlhf_dagster.errors import UserError

ROWS = [{"a": "x\u2028y", "b": 'one, "two"\nthree'}, {"a": "", "b": "4"}, {"a": "é", "b": "5"}]


def read(file: Path) -> list[Any]:
    return [row for _, row in open_source(file).rows()]


def json_lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def parquet(file: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(file)


def arrow_stream(file: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "f.jsonl": lambda file: file.write_bytes(json_lines(ROWS)),
    "f.json": lambda file: file.write_bytes(json.dumps(ROWS, indent=2).encode()),
    "one_line.json": lambda file: file.write_bytes(json.dumps(ROWS).encode()),
    "objects.json": lambda file: file.write_bytes("\n".join(json.dumps(row, indent=2) for row in ROWS).encode()),
    "marked.json": lambda file: file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
    "f.csv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False),
    "semicolons.csv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False, sep=";"),
    "f.tsv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False, sep="\t"),
    "f.parquet": parquet,
    "no_suffix": parquet,
    "f.arrow": arrow_stream,
    "f.feather": lambda file: feather.write_feather(pd.DataFrame(ROWS), str(file)),
    "f.jsonl.gz": lambda file: file.write_bytes(gzip.compress(json_lines(ROWS))),
    "two_parts.jsonl.gz": lambda file: file.write_bytes(
        gzip.compress(json_lines(ROWS[:1]) + b"\n") + gzip.compress(json_lines(ROWS[1:]))
    ),
    "f.jsonl.zst": lambda file: file.write_bytes(pa.compress(json_lines(ROWS), "zstd", asbytes=True)),
    "packed_without_saying.csv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False, compression="gzip"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_format_gives_its_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    source = open_source(tmp_path / name)
    assert [row for _, row in source.rows()] == ROWS
    assert next(number for number, _ in source.rows()) in (1, 2)


def test_values_that_are_cut_by_the_reader_come_whole(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(json.dumps(ROWS, indent=1, ensure_ascii=False).encode())
    for size in (1, 2, 3, 7):
        monkeypatch.setattr("rlhf_dagster.data.reading.json_rows.READ_SIZE", size)
        assert read(file) == ROWS


def test_a_folder_gives_the_rows_of_its_files_by_name(tmp_path: Path) -> None:
    data = tmp_path / "set" / "data"
    data.mkdir(parents=True)
    (data / "b.jsonl").write_bytes(json_lines(ROWS[1:]))
    (data / "a.jsonl.gz").write_bytes(gzip.compress(json_lines(ROWS[:1])))
    (data / "dataset_info.json").write_text("{}")
    (data / "README.md").write_text("what it is")
    assert read(tmp_path / "set") == ROWS
    assert [number for number, _ in open_source(tmp_path / "set").rows()] == [1, 2, 3]


def test_a_long_table_is_read_in_few_rows_at_a_time(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": range(5000)})
    frame.to_parquet(tmp_path / "f.parquet", row_group_size=1700)
    assert [row["n"] for row in read(tmp_path / "f.parquet")] == list(range(5000))
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_file(tmp_path / "f.arrow", table.schema) as writer:
        writer.write_table(table)
    assert [row["n"] for row in read(tmp_path / "f.arrow")] == list(range(5000))


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
def test_lines_keep_their_numbers(tmp_path: Path, name: str) -> None:
    # U+2028 ends a line for str.splitlines, but not in JSON lines; the first three bytes are a byte order mark.
    data = b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "x\xe2\x80\xa8y"}\n'
    file = tmp_path / name
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert list(open_source(file).rows()) == [(1, {"a": 1}), (4, {"a": "x\u2028y"})]


def test_rows_of_a_table_of_text_have_the_numbers_of_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text('a,b\n1,"two\nlines"\n3\n4,5\n')
    rows = list(open_source(file).rows())
    assert [number for number, _ in rows] == [2, 4, 5]
    assert str(rows[1][1]) == "has 1 cells, and the first line names 2 columns"


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"a": 1} {"a": 2}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_a_bad_line_has_its_number_and_the_reason_and_the_rest_is_kept(tmp_path: Path, line: str, part: str) -> None:
    # Where a file begins with a bracket, it may be one array.
    first = [] if line.startswith("[[") else [[line, '{"a": 1}', '{"a": 2}']]
    for lines in (['{"a": 1}', line, '{"a": 2}'], *first):
        (tmp_path / "f.jsonl").write_text("\n".join(lines))
        rows = list(open_source(tmp_path / "f.jsonl").rows())
        assert [row for _, row in rows if not isinstance(row, BadLineError)] == [{"a": 1}, {"a": 2}]
        (bad,) = [row for _, row in rows if isinstance(row, BadLineError)]
        assert part in str(bad)


BOMB = gzip.compress(bytes(2**20), mtime=0)
UNREADABLE: list[tuple[str, bytes, str]] = [
    ("plain.jsonl.gz", b'{"a": 1}\n', "not a whole gzip file"),
    ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 100, mtime=0)[:-12], "not a whole gzip file"),
    ("damaged.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:12] + b"\xff" * 20, "not a whole gzip file"),
    ("plain.jsonl.zst", b'{"a": 1}\n', "not a whole zstd file"),
    ("damaged.jsonl.zst", b"\x28\xb5\x2f\xfd" + b"\xff" * 20, "not a whole zstd file"),
    ("latin.jsonl", '{"a": "é"}'.encode("latin-1"), "not UTF-8 text (byte 7)"),
    ("latin.csv", "a,b\né,1\n".encode("latin-1"), "not UTF-8 text"),
    ("broken.json", b'[{"a": 1}, {"a" 2}]', "value 2 is not valid JSON: Expecting ':' delimiter"),
    ("deep.json", b"[" * 100_000, "value 1 is nested too deeply"),
    ("cut.json", b'[{"a": 1}, {"a": 2', "value 2 is not valid JSON"),
    ("twice.csv", b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
    ("cut.parquet", b"PAR1 and no more", "not a whole Parquet file"),
    ("cut.arrow", b"ARROW1 and no more", "not a whole Arrow file"),
    ("f.zip", b"PK\x03\x04", "an archive of files; unpack it"),
    ("bomb.jsonl.gz", BOMB * 400, "unpacks to more than 200 times its size"),
    ("bomb.csv.gz", BOMB * 400, "unpacks to more than 200 times its size"),
    ("long.jsonl", b'{"a": "' + bytes(5000), "line 1 is longer than"),
    ("long.csv", b'a,b\n"' + b"x" * 5000, "line 2 is longer than"),
    ("long.json", b'[{"a": "' + b"x" * 5000, "a value is longer than"),
]


@pytest.mark.parametrize(("name", "data", "part"), UNREADABLE, ids=[name for name, _, _ in UNREADABLE])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch, name, data, part) -> None:
    if name.startswith(("long", "bomb")):
        longest = 2000 if "long" in name else 2**30
        for module in ("streams", "json_rows", "csv_rows"):
            monkeypatch.setattr(f"rlhf_dagster.data.reading.{module}.longest_row", lambda: longest)
        monkeypatch.setattr(streams, "_BOMB_FROM", 2**22)
        monkeypatch.setattr("rlhf_dagster.data.reading.json_rows.READ_SIZE", 1000)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    assert part in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "empty").mkdir()
    for file, part in (
        (tmp_path / "missing.jsonl", "no such file"),
        (tmp_path / "empty", "no such file in the folder"),
        (tmp_path / "pipe.jsonl", "a pipe, not a file"),
        (Path("/dev/zero"), "a device, not a file"),
        (Path("/dev/null"), "a device, not a file"),
    ):
        with pytest.raises(UserError, match=part):
            open_source(file)


def test_a_folder_of_too_many_files_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_LIMIT_FILES", "2")
    for number in range(3):
        (tmp_path / f"{number}.jsonl").write_text('{"a": 1}')
    with pytest.raises(UserError, match=r"has 3 files with rows, which are too many; .* RLHF_LIMIT_FILES \(now 2\)"):
        read(tmp_path)


def test_a_table_that_unpacks_to_more_than_may_be_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHF_LIMIT_ROW_GROUP_MIB", "1")
    file = tmp_path / "a.parquet"
    pd.DataFrame({"a": ["x" * (2 << 20)]}).to_parquet(file, compression="zstd")
    assert file.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"row group 1 unpacks to more than 1 MiB; .* RLHF_LIMIT_ROW_GROUP_MIB"):
        read(file)


def test_a_table_of_one_value_for_many_rows_is_no_way_round_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BOMB_FROM", 2**22)
    file = tmp_path / "a.parquet"
    pd.DataFrame({"a": ["x" * 2**14] * 400}).to_parquet(file)
    with pytest.raises(UserError, match=r"a.parquet: unpacks to more than 200 times its size"):
        read(file)
    pd.DataFrame({"a": [str(number) * 2**10 for number in range(400)]}).to_parquet(file, compression=None)
    assert len(read(file)) == 400


def test_an_arrow_file_whose_offsets_lead_elsewhere_is_a_sentence(tmp_path: Path) -> None:
    """Read as they are, texts would come from anywhere in memory, or end the process."""
    texts = pa.array(["one", "two", "three"])
    offsets = pa.array([0, 1 << 30, 2, 3], pa.int32()).buffers()[1]
    wrong = pa.Array.from_buffers(pa.string(), 3, [None, offsets, texts.buffers()[2]])
    batch = pa.record_batch([wrong], names=["a"])
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(UserError, match=r"a.arrow: not a whole Arrow file"):
        read(tmp_path / "a.arrow")


def test_an_arrow_file_with_a_name_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.arrow"
    batch = pa.record_batch([pa.array([1])], names=["namename"])
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_file(out, batch.schema) as writer:
        writer.write_batch(batch)
    file.write_bytes(file.read_bytes().replace(b"namename", b"\xecamename"))
    with pytest.raises(UserError, match=r"a.arrow: not a whole Arrow file"):
        read(file)
