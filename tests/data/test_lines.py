import gzip
from pathlib import Path

import pytest

from rlhf_dagster.data.lines import BadLineError, parse_lines, read_lines
from rlhf_dagster.errors import UserError


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
def test_lines_keep_their_numbers(tmp_path: Path, name: str) -> None:
    # U+2028 ends a line for str.splitlines, but not in JSON lines; the first three bytes are a byte order mark.
    data = b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "x\xe2\x80\xa8y"}\n'
    file = tmp_path / name
    file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    records, refused = parse_lines(read_lines(file), lambda values: values["a"])
    assert records == [(1, 1), (4, "x\u2028y")]
    assert refused == []


@pytest.mark.parametrize(
    ("name", "data", "part"),
    [
        ("empty.jsonl", b"", "empty"),
        ("blank.jsonl", b"\n \n", "empty"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "empty"),
        ("plain.jsonl.gz", b'{"a": 1}\n', "not a whole gzip file"),
        ("cut.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 100, mtime=0)[:-12], "not a whole gzip file"),
        ("damaged.jsonl.gz", gzip.compress(b'{"a": 1}\n', mtime=0)[:12] + b"\xff" * 20, "not a whole gzip file"),
        ("latin.jsonl", '{"a": "é"}'.encode("latin-1"), "not UTF-8 text (byte 7)"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, data: bytes, part: str) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_lines(file)
    assert part in str(error.value)
    assert str(file) in str(error.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for file in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_lines(file)


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
def test_a_bad_line_is_refused_with_its_number_and_the_rest_kept(line: str, part: str) -> None:
    records, refused = parse_lines([(1, '{"a": 1}'), (7, line), (9, '{"a": 2}')], lambda values: values["a"])
    assert records == [(1, 1), (9, 2)]
    assert [number for number, _ in refused] == [7]
    assert part in refused[0][1]


def test_what_the_parser_refuses_is_reported() -> None:
    def refuse(_: dict) -> None:
        raise BadLineError("no")

    assert parse_lines([(3, "{}")], refuse) == ([], [(3, "no")])
