"""What people of another kind would have answered to the comparisons that a loop's people labelled."""

import numpy as np

from rlhf_dagster.common.intervals import Rate, clustered_rate
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.outcome import best
from rlhf_dagster.records.tables import records
from rlhf_dagster.replication.measures.labels import LABELLED_BATCH, submitted_labels
from rlhf_dagster.replication.measures.rounds import newest_with, round_table
from rlhf_dagster.tasks.annotator_kinds import annotators_of


def agreement_with(loop: LoopFolder, kind: str, round_key: str = "") -> Rate:
    """Share of labels that name the same best response as a person of another kind, who is asked for the first time.

    People of the kind judge by turns. As in :func:`~rlhf_dagster.replication.measures.labels.agreement`, only labels
    that name a single response count, on both sides. Of a round, by default the latest.
    """
    key = round_key or newest_with(loop, LABELLED_BATCH)
    batch = {row["comparison_id"]: row for row in records(round_table(loop, LABELLED_BATCH, key))}
    people = annotators_of(loop.task, kind, loop.config.stage_seed("annotators"))
    agreed, asked = [], []
    for turn, label in enumerate(records(usable_labels(submitted_labels(loop, key)).sort_values("label_id"))):
        row = batch[label["comparison_id"]]
        judged = people[turn % len(people)].judge(row["prompt"], row["responses"], row["kind"], row["comparison_id"])
        own, other = best(list(label["ranks"])), best(judged.ranks) if judged.ranks else []
        if len(own) == len(other) == 1:
            agreed.append(own == other)
            asked.append(label["comparison_id"])
    return clustered_rate(np.array(agreed, dtype=np.float64), asked)
