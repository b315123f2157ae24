"""Rows of a table as plain dictionaries."""

from typing import Any, cast

import pandas as pd


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary for each row, keyed by column name."""
    return cast(list[dict[str, Any]], frame.to_dict("records"))
