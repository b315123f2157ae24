"""Whom the reward models of the folds learn from, and on whose labels they are measured."""

import pandas as pd
import pytest

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.probes import annotator_folds as folds


def test_nobody_is_known_to_the_model_that_leaves_them_out(
    finished: LoopRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[set[str]] = []

    def predicted(_: LoopFolder, preferences: pd.DataFrame, tested: pd.DataFrame, number: int) -> pd.DataFrame:
        learned = preferences[preferences["split"] == "train"]
        assert not set(learned["prompt_id"]) & set(tested["prompt_id"])
        measured.append(set(tested["prompt_id"]))
        return pd.DataFrame({"credit": tested["annotator"].isin(learned["annotator"]).astype(float), "tied": False})

    monkeypatch.setattr(folds, "_predicted", predicted)
    found = folds.annotator_folds(finished.loop, folds=3, comparisons=12, measured=0.3)
    assert found["held_out"]["value"] == 0
    # Not everybody has a label among so few comparisons.
    assert found["own"]["value"] > 0.5
    few = measured[-1]
    folds.annotator_folds(finished.loop, folds=3, comparisons=12, measured=0.5)
    assert len(measured[-1]) > len(few)
