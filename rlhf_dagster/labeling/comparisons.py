"""Comparisons: which responses annotators judge side by side, in which order shown, and by how many people."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.selection import select
from rlhf_dagster.records.ids import comparison_id, content_hash
from rlhf_dagster.records.kinds import PAIR
from rlhf_dagster.records.schemas import COMPARISONS, table
from rlhf_dagster.records.tables import grouped, records


def build_comparisons(
    completions: pd.DataFrame,
    settings: LabelingSettings,
    round_key: str,
    seed: int,
    purpose: str = "train",
    gaps: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Comparisons of each prompt's completions, at most ``settings.comparisons_per_round``.

    ``completions`` has the columns of COMPLETIONS, the result those of COMPARISONS, in the order in which they should
    be judged: a random one, or by the reward model's ``gaps`` (:func:`~rlhf_dagster.labeling.selection.select`).
    ``settings.overlap`` of the comparisons want ``overlap_labels`` labels, the others one. Everything drawn depends on
    ``seed`` and the comparison's id alone.
    """
    rows = candidates(completions, settings, round_key, seed, purpose)
    rows = select(rows, settings.comparisons_per_round, gaps, settings.selection_random, seed)
    _want_overlap(rows, settings, seed)
    return table(rows, COMPARISONS).to_pandas()


def candidates(
    completions: pd.DataFrame, settings: LabelingSettings, round_key: str, seed: int, purpose: str = "train"
) -> list[dict[str, Any]]:
    """All comparisons that the completions allow, in a random order.

    Equal responses to a prompt count once, since there is nothing to choose between them; a response with which none is
    left to compare is left out.
    """
    rows = []
    for group in grouped(completions.sort_values(["prompt_id", "index", "completion_id"]), "prompt_id"):
        for members in _chunks(_distinct(group), settings.responses):
            rows.append(comparison_row(members, settings.kind, round_key, purpose, seed))
    rows.sort(key=lambda row: content_hash("batch", seed, row["comparison_id"]))
    return rows


def build_ab_comparisons(
    completions: pd.DataFrame, pairs: Sequence[tuple[str, str]], n: int, round_key: str, seed: int
) -> pd.DataFrame:
    """``n`` blind A/B comparisons, shared equally between the ``pairs`` of policies.

    ``completions`` (columns of COMPLETIONS) holds one response for each prompt and policy. Prompts are drawn at random;
    one whose two responses are equal is left out (it is a tie without asking anybody), so there may be fewer than
    ``n``. The result has the columns of COMPARISONS, kind ``pair`` and purpose ``evaluation``.
    """
    distinct_pairs = list(dict.fromkeys(pairs))
    by_policy = {
        policy: {row["prompt_id"]: row for row in records(group)} for policy, group in completions.groupby("policy_id")
    }
    missing = sorted({policy for pair in distinct_pairs for policy in pair} - set(by_policy))
    if missing:
        raise UserError(f"There are no completions of {', '.join(missing)} to compare; sample them first.")
    rows: dict[str, dict[str, Any]] = {}
    for number, (first, second) in enumerate(distinct_pairs):
        wanted = n // len(distinct_pairs) + (number < n % len(distinct_pairs))
        for members in _prompts_of_both(by_policy[first], by_policy[second], wanted, seed):
            row = comparison_row(members, PAIR.name, round_key, "evaluation", seed)
            rows[row["comparison_id"]] = row
    # Mixed, so that an annotator's pace or mood over the batch does not fall on one pair of policies.
    mixed = sorted(rows.values(), key=lambda row: content_hash("batch", seed, row["comparison_id"]))
    return table(mixed, COMPARISONS).to_pandas()


def comparison_row(
    members: Iterable[dict[str, Any]],
    kind: str,
    round_key: str,
    purpose: str,
    seed: int,
    role: str = "label",
    shown: Sequence[str] = (),
) -> dict[str, Any]:
    """One row of COMPARISONS for the completions ``members`` (rows of COMPLETIONS of one prompt).

    ``shown`` are their ids in the order shown; by default that is a random one.
    """
    ordered = sorted(members, key=lambda row: row["completion_id"])
    ids = [row["completion_id"] for row in ordered]
    identity = comparison_id(ids, kind, round_key, "" if role == "label" else role)
    return {
        "comparison_id": identity,
        "round": round_key,
        "kind": kind,
        "purpose": purpose,
        "role": role,
        "prompt_id": ordered[0]["prompt_id"],
        "prompt": ordered[0]["prompt"],
        "messages": ordered[0].get("messages"),
        "completion_ids": ids,
        "responses": [row["text"] for row in ordered],
        "policy_ids": [row["policy_id"] for row in ordered],
        "display_order": [ids.index(one) for one in shown] or display_order(len(ids), identity, seed),
        "gold_ranks": None,
        "repeat_of": "",
        "labels_wanted": 1,
        "project": "",
        "task_id": "",
        "token_ids": [_drawn(row) for row in ordered],
        "tokenizers": [row.get("tokenizer") or "" for row in ordered],
        "name": "",
    }


def _drawn(completion: Mapping[str, Any]) -> list[int] | None:
    """The tokens drawn for a completion; None where none were, or it is not known of which tokenizer they are."""
    return [int(token) for token in completion["token_ids"]] if completion.get("tokenizer") else None


def display_order(k: int, comparison: str, seed: int) -> list[int]:
    """A random order for ``k`` responses, drawn for one comparison id."""
    order = list(range(k))
    random.Random(int(content_hash("display", seed, comparison), 16)).shuffle(order)
    return order


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first row of each text, white space around it aside."""
    by_text: dict[str, dict[str, Any]] = {}
    for row in rows:
        by_text.setdefault(row["text"].strip(), row)
    return list(by_text.values())


def _chunks(rows: list[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(rows) - 1, size):
        chunk = rows[start : start + size]
        if len(chunk) >= 2:
            yield chunk


def _prompts_of_both(
    first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]], wanted: int, seed: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The two policies' rows for ``wanted`` prompts that both answered, differently."""
    shared = sorted(first.keys() & second.keys(), key=lambda prompt: content_hash("a/b", seed, prompt))
    differing = [prompt for prompt in shared if first[prompt]["text"].strip() != second[prompt]["text"].strip()]
    for prompt in differing[:wanted]:
        yield first[prompt], second[prompt]


def _want_overlap(rows: list[dict[str, Any]], settings: LabelingSettings, seed: int) -> None:
    """Set ``labels_wanted`` on the share of the rows that several people judge."""
    drawn = sorted(rows, key=lambda row: content_hash("overlap", seed, row["comparison_id"]))
    for row in drawn[: round(settings.overlap * len(rows))]:
        row["labels_wanted"] = settings.overlap_labels
