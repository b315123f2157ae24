"""Judgments of pairs by simulated annotators that are no part of a loop's labels."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from rlhf_dagster.labeling.comparisons import build_ab_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.simulate import simulate_annotators
from rlhf_dagster.tasks.base import SimulatedAnnotator


def simulated_judgments(
    annotators: Sequence[SimulatedAnnotator],
    responses: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    round_key: str,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels and comparisons (schemas LABELS and COMPARISONS) of the pairs of policies, one annotator to each.

    ``responses`` has the columns of COMPLETIONS, with one response for each prompt and policy; a prompt whose two
    responses are equal is not asked about.
    """
    comparisons = build_ab_comparisons(responses, pairs, len(responses) * len(pairs), round_key, seed)
    with TemporaryDirectory() as folder:
        store = EmbeddedLabelStore(Path(folder, "judgments.sqlite"))
        store.send(comparisons)
        simulate_annotators(store, annotators, round_key, "evaluation", seed)
        labels, _ = labels_table(store.read(round_key, "evaluation")[0], comparisons)
    return labels, comparisons
