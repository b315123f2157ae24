"""Group `preferences`: what people thought of single responses, for a loop whose DPO learns from it."""

import dagster as dg
import pandas as pd

from rlhf_dagster.assets.define import loop_asset
from rlhf_dagster.assets.metadata import table_result
from rlhf_dagster.data.tables import build_feedback
from rlhf_dagster.loop.folder import LoopFolder


@loop_asset("preferences", by_round=True)
def feedback(loop: dg.ResourceParam[LoopFolder], prompts: pd.DataFrame) -> dg.MaterializeResult[pd.DataFrame]:
    """Responses that somebody liked or did not, as `rlhf import feedback` brought them in until this round was trained.

    `dpo.loss: kto` learns from them. Each has the split of its user or its prompt, and those of the test split are
    left out (`left_out_of_test`).
    """
    frame, of_test = build_feedback(loop.config, loop.store, prompts)
    liked = frame["liked"].astype(bool)
    counts = {"liked": int(liked.sum()), "disliked": int((~liked).sum()), "left_out_of_test": of_test}
    return table_result(frame, ["feedback_id", "weight", "split"], **counts)
