"""Small tables of labels and comparisons."""

from datetime import UTC, datetime

import pandas as pd

from rlhf_dagster.records.schemas import COMPARISONS, LABELS, table

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def tables(judgments: list[tuple], k: int = 2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``judgments``: (comparison, annotator, best index or a tuple of them or None, seconds)."""
    labels = []
    for number, (comparison, annotator, choice, seconds) in enumerate(judgments):
        top = choice if isinstance(choice, tuple) else (choice,)
        labels.append(
            dict.fromkeys(LABELS.names)
            | {
                "label_id": f"l{number:05}",
                "comparison_id": comparison,
                "annotator": annotator,
                "latest": True,
                "status": "submitted",
                "ranks": None if choice is None else [1 if index in top else 2 for index in range(k)],
                "chosen_position": top[0] if choice is not None and len(top) == 1 else None,
                "seconds": seconds,
                "updated_at": TIME,
            }
        )
    comparisons = [
        dict.fromkeys(COMPARISONS.names) | {"comparison_id": name} for name in sorted({row[0] for row in judgments})
    ]
    return table(labels, LABELS).to_pandas(), table(comparisons, COMPARISONS).to_pandas()
