"""Labels of known truth: how often people agree, repeat themselves and prefer a place is set where they are made."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from rlhf_dagster.records.schemas import COMPARISONS, LABELS, table

TIME = datetime(2026, 1, 1, tzinfo=UTC)
Values = pd.DataFrame


def pair_values(generator: np.random.Generator, comparisons: int, labels: list[int]) -> Values:
    """Choices (0, 1, or 2 for a tie) of people who see a difference through noise; ``labels`` a comparison may have."""
    number = np.repeat(np.arange(comparisons), generator.choice(labels, comparisons))
    seen = generator.normal(0, 1.2, comparisons)[number] + generator.logistic(0, 1, len(number))
    choice = np.where(np.abs(seen) < 0.5, 2, np.where(seen > 0, 0, 1))
    return pd.DataFrame({"comparison": number, "unit": number, "value": choice})


def rank_values(generator: np.random.Generator, comparisons: int, labels: list[int], k: int = 5) -> Values:
    """Ranks of ``k`` responses by people with the same taste and noise (Plackett-Luce)."""
    number = np.repeat(np.arange(comparisons), generator.choice(labels, comparisons))
    ranks = ranked(generator, generator.normal(0, 1, (comparisons, k))[number])
    units = number[:, None] * k + np.arange(k)
    return pd.DataFrame({"comparison": np.repeat(number, k), "unit": units.ravel(), "value": ranks.ravel()})


def ranked(generator: np.random.Generator, quality: np.ndarray) -> np.ndarray:
    """Ranks, 1 best, of responses of this ``quality`` (shape [n, K]) through Gumbel noise."""
    return (-(quality + generator.gumbel(0, 1, quality.shape))).argsort(axis=1).argsort(axis=1) + 1


def label_row(number: int, comparison: str, annotator: str, ranks: Any, **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(LABELS.names) | {"label_id": f"l{number:06}", "comparison_id": comparison, "flags": []}
    row |= {"annotator": annotator, "latest": True, "status": "submitted", "ranks": ranks, "updated_at": TIME}
    chosen = [] if ranks is None else [place for place, rank in enumerate(ranks) if rank == 1]
    return row | {"kind": "pair", "chosen_position": chosen[0] if len(chosen) == 1 else None} | changes


def comparison_of(name: str, k: int = 2, **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(COMPARISONS.names) | {"comparison_id": name, "role": "label", "repeat_of": "", "kind": "pair"}
    return row | {"display_order": list(range(k)), "policy_ids": ["p"] * k} | changes


def frames(labels: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    return table(labels, LABELS).to_pandas(), table(comparisons, COMPARISONS).to_pandas()
