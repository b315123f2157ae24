"""The labels, and the feedback, that DPO's losses learn from, by split."""

import pandas as pd
from transformers import PreTrainedTokenizerBase

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.records.schemas import FEEDBACK, PREFERENCES
from rlhf_dagster.records.tables import HELD_OUT_SPLITS, read_table, rows_of_split
from rlhf_dagster.training.dpo.pairs import Comparison, encode_comparisons
from rlhf_dagster.training.dpo.singles import Opinion, beside_others, encode_singles, kind_weights
from rlhf_dagster.training.reward.labels import check_labels
from rlhf_dagster.training.specs import DpoSpec
from rlhf_dagster.training.texts.cuts import Cuts

READ_BY_DPO = "sampling.response_tokens"
"""The setting that says how much of a response is read."""


def checked_labels(spec: DpoSpec) -> pd.DataFrame:
    """The spec's table of labels, each of which a loss can be computed for; raises UserError."""
    frame = read_table(spec.preferences, PREFERENCES)
    check_labels(frame, spec.preferences)
    return frame


def encode_splits(
    spec: DpoSpec, labels: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, cuts: Cuts
) -> dict[str, list[Comparison]]:
    """What `dpo.loss` learns from, with what it is measured on, without splits that are empty; `train` is first.

    ``cuts`` counts what is not read of `train`. Raises UserError where there is nothing to train on.
    """
    if spec.settings.loss == "kto":
        return _singles(spec, labels, tokenizer, cuts)
    return _pairs(spec, labels, tokenizer, cuts)


def _pairs(
    spec: DpoSpec, labels: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, cuts: Cuts
) -> dict[str, list[Comparison]]:
    train, own = rows_of_split(labels, "train", spec.preferences), tokenizer_digest(spec.sft)
    encoded = {"train": encode_comparisons(train, tokenizer, spec.sampling, cuts, own)}
    cuts.require_some(READ_BY_DPO)
    held_out = {
        split: encode_comparisons(rows, tokenizer, spec.sampling, tokenizer_id=own)
        for split in HELD_OUT_SPLITS
        if len(rows := labels[labels["split"] == split])
    }
    return encoded | {split: rows for split, rows in held_out.items() if rows}


def _singles(
    spec: DpoSpec, labels: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, cuts: Cuts
) -> dict[str, list[Comparison]]:
    feedback = None if spec.feedback is None else read_table(spec.feedback, FEEDBACK)
    own = tokenizer_digest(spec.sft)

    def said(split: str, cuts: Cuts | None = None) -> list[Opinion]:
        thought = None if feedback is None else feedback[feedback["split"] == split]
        return encode_singles(labels[labels["split"] == split], thought, tokenizer, spec.sampling, cuts, own)

    train = said("train", cuts)
    if not train:
        raise UserError(f"{spec.preferences}: no label or feedback of split 'train' likes one response or another.")
    weights = kind_weights(train, spec.settings)
    encoded = {"train": beside_others(train, weights, spec.seed)}
    if not encoded["train"]:
        raise UserError(
            f"{spec.preferences}: all {len(train):,} judged responses answer the same prompt; `dpo.loss: kto` measures "
            "its distance from SFT on responses to other prompts, and needs at least two prompts."
        )
    encoded |= {split: beside_others(rows, weights, spec.seed) for split in HELD_OUT_SPLITS if (rows := said(split))}
    return {split: rows for split, rows in encoded.items() if rows}
