"""Rows of a data set that `datasets` opens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.config.data import HubDataset, JudgmentsDataset
from rlhf_dagster.data.reading.source import NumberedRow, RowSource
from rlhf_dagster.errors import UserError, first_line


def load_rows(source: HubDataset | JudgmentsDataset, root: Path) -> Any:
    """The data set, of which ``root`` is the folder that a local name is relative to; raises UserError."""
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise UserError(f"Reading a data set needs the `datasets` package; `{install_extras('datasets')}`.") from None
    local = root / source.name
    name = str(local) if local.exists() else source.name
    try:
        return load_dataset(name, source.config, split=source.split, revision=source.revision)
    except (OSError, ValueError, DatasetsError) as error:
        raise UserError(f"The data set {source.name} cannot be read: {first_line(error)}.") from None


def hub_source(source: JudgmentsDataset, root: Path) -> RowSource:
    """The rows of a data set as a source."""
    loaded = load_rows(source, root)

    def rows() -> Iterator[NumberedRow]:
        yield from enumerate(loaded, start=1)

    return RowSource(source.name, f"The data set {source.name}", "row", rows)
