"""Tables and figures of a round of a loop, which have to be there."""

from typing import Any, NoReturn

import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder


def round_table(loop: LoopFolder, asset: str, round_key: str = "") -> pd.DataFrame:
    """The table of a round, by default of the newest that has it; raises UserError where it is not made."""
    key = round_key or newest_with(loop, asset)
    found = loop.table(asset, key)
    return _is_missing(loop, asset, key) if found is None else found


def round_figures(loop: LoopFolder, asset: str, round_key: str = "") -> dict[str, Any]:
    """The JSON figures of a round; the same."""
    key = round_key or newest_with(loop, asset)
    return loop.json(asset, key) or _is_missing(loop, asset, key)


def newest_with(loop: LoopFolder, asset: str) -> str:
    return max(loop.rounds_with(asset), default="the loop")


def _is_missing(loop: LoopFolder, asset: str, key: str) -> NoReturn:
    raise UserError(f"{loop.root}: {key} has no {asset}; let it get there first.")
