"""What a round of a loop has measured itself: its reward model's accuracy, and the alignment tax of its policy."""

from typing import Literal

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.measures.rounds import round_figures
from rlhf_dagster.replication.verdicts import rate_of

_ACCURACY = "reward_model_accuracy"
Group = Literal["rounds", "kinds", "annotators", "strengths", "length_differences", "splits"]


def accuracy_of(loop: LoopFolder, split: str = "unseen", round_key: str = "") -> Rate:
    """Share of labels whose best response a round's reward model scores highest; of the latest round by default.

    ``split`` is ``train``, ``validation`` (other prompts), ``held_out_annotators`` or ``unseen`` (both of these).
    Unmeasured where the split holds no label.
    """
    figures = round_figures(loop, _ACCURACY, round_key)
    found = figures["unseen"] if split == "unseen" else figures["splits"].get(split)
    return rate_of(found["accuracy"] if found else None)


def accuracy_by(loop: LoopFolder, group: Group, round_key: str = "") -> dict[str, Rate]:
    """The same on the labels not trained on, one group after the other: by the round of the label, its strength, ..."""
    figures = round_figures(loop, _ACCURACY, round_key)[group]
    return {name: rate_of(found["accuracy"]) for name, found in figures.items() if found["accuracy"]}


def tax_of(loop: LoopFolder, round_key: str = "") -> Rate:
    """The policy's perplexity on held-out pretraining text over that of SFT; of the latest round by default.

    Raises UserError with the round's own sentence where it could not be measured.
    """
    report = round_figures(loop, "eval_report", round_key)
    if not report["alignment_tax"]:
        why = report["unmeasured"].get("max_perplexity_ratio", "Its report has no alignment tax.")
        raise UserError(f"{loop.root}: {why}")
    return rate_of(report["alignment_tax"])
