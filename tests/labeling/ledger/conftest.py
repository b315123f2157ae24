"""Ledgers in SQLite and in a real Postgres server."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LedgerAddress

Batch = Callable[..., pd.DataFrame]


@pytest.fixture
def batch(completions) -> Batch:
    """``batch(n, round)``: comparisons of pairs."""
    settings = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=20_000)
    return lambda n, round_key="round-0001": build_comparisons(completions(n, 2), settings, round_key, seed=0)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request, tmp_path: Path) -> LedgerAddress:
    """Where no ledger is yet."""
    if request.param == "sqlite":
        return LedgerAddress.of(tmp_path / "ledger.sqlite")
    return LedgerAddress.of(request.getfixturevalue("postgres").address())


@pytest.fixture
def ledger(place: LedgerAddress) -> EmbeddedLabelStore:
    return EmbeddedLabelStore(place)
