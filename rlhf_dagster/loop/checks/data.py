"""Checks of prompts and demonstrations."""

import math

import pandas as pd

from rlhf_dagster.common.words import bare_words
from rlhf_dagster.loop.checks.outcome import CheckOutcome, NotMadeYet, noticed, well
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.left_out import (
    demonstration_split_notice,
    manifest_of,
    precision_notice,
    prompt_split_notice,
)

_COLUMNS = ["text", "split"]


def prompts_are_enough(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether there are enough prompts for a round, and to measure as precisely as the settings want.

    With fewer than `labeling.comparisons_per_round` to train on, rounds ask about the same prompts again.
    """
    prompts, wanted = _table(loop, "prompts"), loop.config.labeling.comparisons_per_round
    train, test = ((prompts["split"] == split).sum() for split in ("train", "test"))
    said = []
    if train < wanted:
        said.append(
            f"A round compares responses to {wanted:,} prompts, and the train split has {train:,}: a round asks about "
            f"each {math.ceil(wanted / max(train, 1))} times, and all rounds about the same. Give more prompts, or "
            "lower `labeling.comparisons_per_round`."
        )
    if notice := precision_notice(loop.config, prompts):
        said.append(notice)
    figures = {"train_prompts": float(train), "test_prompts": float(test)}
    enough = f"{train:,} prompts to train on, of which a round compares {wanted:,}, and {test:,} to measure on."
    return CheckOutcome(not said, " ".join(said) or enough, figures)


def prompts_are_distinct(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether prompts differ by more than case, spaces and punctuation.

    Equal ones are made one in any case. Where nearly equal ones are in two splits, policies are measured on what they
    were trained on.
    """
    prompts = _table(loop, "prompts")
    bare = prompts["text"].map(lambda text: " ".join(bare_words(text)))
    repeated = int(bare.duplicated().sum())
    seen = set(bare[prompts["split"] == "train"])
    leaked = int(bare[prompts["split"] == "test"].isin(seen).sum())
    figures = {"nearly_equal": float(repeated), "share": repeated / len(prompts), "test_seen_in_train": float(leaked)}
    said = f"{repeated:,} of {len(prompts):,} prompts equal another one but for case, spaces and punctuation"
    if leaked:
        return CheckOutcome(
            False,
            f"{said}, and {leaked:,} of the test split stand in the train split so: policies are measured on prompts "
            "that they were trained on. Remove them from the source.",
            figures,
            wrong=True,
        )
    most = loop.config.checks.max_near_duplicates
    if most is not None and repeated > most * len(prompts):
        return noticed(f"{said}, more than `checks.max_near_duplicates` ({most:.1%}).", **figures)
    return well(f"{said}." if repeated else "All prompts differ in their words.", **figures)


def prompts_fill_splits(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether prompts are in every split that the settings want.

    Without a prompt to train on, or to measure on, the asset itself fails.
    """
    prompts = _table(loop, "prompts")
    sizes = {f"{split}_prompts": float((prompts["split"] == split).sum()) for split in ("train", "validation", "test")}
    notice = prompt_split_notice(loop.config, prompts)
    return CheckOutcome(not notice, notice or "Every split that the settings want has prompts.", sizes)


def demonstrations_fill_splits(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether demonstrations are kept from training, to say how well SFT has learned."""
    demonstrations = _table(loop, "demonstrations")
    notice = demonstration_split_notice(demonstrations)
    sizes = {f"{split}_rows": float((demonstrations["split"] == split).sum()) for split in ("train", "validation")}
    return CheckOutcome(not notice, notice or "Demonstrations are in both splits.", sizes)


def demonstrations_are_whole(loop: LoopFolder, round_key: str) -> CheckOutcome:
    """Whether SFT has read demonstrations to their end: what `sft.max_tokens` cuts off is not learned."""
    if loop.checkpoint("sft_checkpoint") is None:
        raise NotMadeYet("sft_checkpoint", "")
    metrics, most = manifest_of(loop, "sft_checkpoint").get("metrics", {}), loop.config.checks.max_cut
    cut, share = metrics.get("cut_responses", 0.0), metrics.get("cut_response_share", 0.0)
    if most is not None and share > most:
        return noticed(
            f"{cut:,.0f} demonstrations ({share:.1%}) are longer than sft.max_tokens "
            f"({loop.config.sft.max_tokens:,}), and their ends are not learned; `checks.max_cut` is {most:.1%}.",
            cut=cut,
            share=share,
        )
    return well(f"{cut:,.0f} demonstrations were cut." if cut else "No demonstration was cut.", cut=cut, share=share)


def _table(loop: LoopFolder, asset: str) -> pd.DataFrame:
    found = loop.table(asset, columns=_COLUMNS if asset == "prompts" else ["split"])
    if found is None:
        raise NotMadeYet(asset, "")
    return found
