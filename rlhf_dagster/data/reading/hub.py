"""Rows of a data set that `datasets` opens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.config.data import HubDataset, JudgmentsDataset
from rlhf_dagster.data.reading.source import NumberedRow, RowSource
from rlhf_dagster.errors import UserError, first_line

_TOO_MANY = 429
_NOT_SHOWN = (401, 403, 404)
"""Statuses by which the Hub does not say whether something is missing or private."""


def load_rows(source: HubDataset | JudgmentsDataset, root: Path) -> Any:
    """The data set, of which ``root`` is the folder that a local name is relative to; raises UserError."""
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError
    except ImportError:
        raise UserError(f"Reading a data set needs the `datasets` package; `{install_extras('datasets')}`.") from None
    local = root / source.name
    name = str(local) if local.exists() else source.name
    try:
        return load_dataset(name, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # datasets, huggingface_hub and what they ask the Hub with share no class of errors
        at = f" at revision {source.revision}" if source.revision else ""
        why = first_line(error) if local.exists() else _why(error, isinstance(error, DatasetNotFoundError))
        raise UserError(f"The data set {source.name}{at} cannot be read: {why}.") from None


def _why(error: Exception, is_not_found: bool) -> str:
    """What the Hub, or the way to it, is at fault with, and what to do."""
    status = _status(error)
    if status == _TOO_MANY:
        return (
            "the Hub has been asked too often (429); try again in some minutes, or log in (`hf auth login`, or "
            "HF_TOKEN), which allows for more"
        )
    if is_not_found or status in _NOT_SHOWN:
        return (
            f"{first_line(error)}; look whether the name and the revision are right and, where it is private, log in "
            "(`hf auth login`, or HF_TOKEN)"
        )
    return f"{first_line(error)}; look whether the Hub can be reached, and try again"


def _status(error: BaseException | None) -> int | None:
    """The status of the Hub's answer, by the error or by those that it comes from; None without an answer."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__ or error.__context__
    return None


def hub_source(source: JudgmentsDataset, root: Path) -> RowSource:
    """The rows of a data set as a source."""
    loaded = load_rows(source, root)

    def rows() -> Iterator[NumberedRow]:
        yield from enumerate(loaded, start=1)

    return RowSource(source.name, f"The data set {source.name}", "row", rows)
