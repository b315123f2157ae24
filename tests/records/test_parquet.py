"""Tables carry a checksum that other readers of Parquet pass over."""

import io
import random
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhf_dagster.errors import Damaged
from rlhf_dagster.records.parquet import is_sealed, read_parquet, seal_parquet, to_parquet, without_tag

TABLE = pa.table({"id": range(400), "text": [f"ü{n % 7}" for n in range(400)], "ranks": [[n, 1] for n in range(400)]})


def test_a_sealed_table_is_read_by_us_and_by_others() -> None:
    data = to_parquet(TABLE)
    assert is_sealed(data)
    assert read_parquet(data, "t").equals(TABLE)
    assert read_parquet(data, "t", ["text"]).equals(TABLE.select(["text"]))
    assert pd.read_parquet(io.BytesIO(data)).equals(TABLE.to_pandas())
    assert pq.read_metadata(io.BytesIO(data)).num_rows == 400


def test_equal_tables_are_equal_bytes_and_the_tag_comes_off() -> None:
    data = to_parquet(TABLE)
    assert data == to_parquet(TABLE)
    plain = without_tag(data)
    assert not is_sealed(plain)
    assert seal_parquet(plain) == data == seal_parquet(data)


def test_a_table_of_somebody_else_is_read_as_it_is(tmp_path) -> None:
    path = tmp_path / "theirs.parquet"
    TABLE.to_pandas().to_parquet(path)
    assert read_parquet(path).to_pandas().equals(TABLE.to_pandas())


@pytest.mark.parametrize("where", ["anywhere", "in the footer"])
def test_a_flipped_bit_is_noticed_or_changes_nothing(where: str) -> None:
    data, draw = to_parquet(TABLE), random.Random(0)
    noticed = 0
    for _ in range(1000):
        flipped = bytearray(data)
        position = draw.randrange(len(data)) if where == "anywhere" else len(data) - 1 - draw.randrange(900)
        flipped[position] ^= 1 << draw.randrange(8)
        try:
            found = read_parquet(bytes(flipped), "assets/t.parquet")
        except Damaged as damaged:
            assert "assets/t.parquet is damaged" in str(damaged)
            noticed += 1
        else:
            assert found.equals(TABLE)
    assert noticed > 900


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_half_a_table_is_damaged(cut: int) -> None:
    data = to_parquet(TABLE)
    with pytest.raises(Damaged, match="t is damaged"):
        read_parquet(data[:cut], "t")


def test_zeros_are_damaged() -> None:
    with pytest.raises(Damaged, match="t is damaged"):
        read_parquet(bytes(5000), "t")


def test_a_process_that_ends_after_it_has_read_a_table_ends_well(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(
        to_parquet(pa.table({f"column {n}": [*map(str, range(200))] for n in range(12)}))
    )
    script = """
import os, sys
from pathlib import Path
from rlhf_dagster.records.parquet import read_parquet
for number in range(15):
    if not os.fork():
        table = read_parquet(Path(sys.argv[1]))
        sys.exit()
    if status := os.wait()[1]:
        sys.exit(f"process {number} ended with status {status}")
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "t.parquet")], check=True)
