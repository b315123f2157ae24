"""A folder that `datasets.load_dataset` opens: a Parquet file for each split, a card, and Croissant."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from rlhf_dagster.common.files import writing
from rlhf_dagster.data.export.row_files import Columns, Write, rows_to
from rlhf_dagster.errors import UserError

ONLY_SPLIT = "train"
"""Where rows have no split."""
DATA = "data"


@contextmanager
def rows_by_split(folder: Path, columns: Columns, counts: Counter[str]) -> Iterator[Write]:
    """Write rows to ``data/SPLIT.parquet``, by their column ``split``, and count them in ``counts``.

    Raises UserError for a folder that holds a file.
    """
    if folder.exists() and (not folder.is_dir() or any(path.is_file() for path in folder.rglob("*"))):
        raise UserError(f"{folder} holds something already; choose an empty folder, or a new one.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Write] = {}
    with ExitStack() as stack:

        def write(row: Mapping[str, Any]) -> None:
            split = row.get("split") or ONLY_SPLIT
            if split not in files:
                files[split] = stack.enter_context(rows_to(folder / DATA / f"{split}.parquet", columns))
            files[split](row)
            counts[split] += 1

        yield write


@contextmanager
def rows_out(out: Path, columns: Columns, counts: Counter[str]) -> Iterator[Write]:
    """Write rows to a file, or to a folder where the name of ``out`` has no ending; count them by split."""
    if not out.suffix:
        with rows_by_split(out, columns, counts) as write:
            yield write
        return
    with rows_to(out, columns) as write:

        def counting(row: Mapping[str, Any]) -> None:
            write(row)
            counts[row.get("split") or ONLY_SPLIT] += 1

        yield counting
