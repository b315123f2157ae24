"""From which columns of other tables the columns of a table come, as Dagster shows it."""

from collections.abc import Mapping

import dagster as dg

from rlhf_dagster.records.loop_names import LoopNames

COLUMN_LINEAGE = "dagster/column_lineage"
"""The key under which Dagster looks for it, in what is said of a table when it is made."""
_OF_A_PROMPT = {
    "prompt_id": ["prompts.prompt_id"],
    "prompt": ["prompts.text"],
    "messages": ["prompts.messages"],
}


def _compared(completions: str) -> dict[str, list[str]]:
    """Of comparisons of these completions."""
    same = {column: [f"{completions}.{column}"] for column in ("prompt_id", "prompt", "messages", "token_ids")}
    return same | {
        "completion_ids": [f"{completions}.completion_id"],
        "responses": [f"{completions}.text"],
        "policy_ids": [f"{completions}.policy_id"],
        "tokenizers": [f"{completions}.tokenizer"],
    }


def _copied(table: str, *columns: str) -> dict[str, list[str]]:
    return {column: [f"{table}.{column}"] for column in columns}


COLUMN_SOURCES: Mapping[str, Mapping[str, list[str]]] = {
    "demonstration_batch": _OF_A_PROMPT,
    "demonstrations": _copied("prompts", "split"),
    "completions": _OF_A_PROMPT,
    "preference_batch": _compared("completions"),
    "preference_labels": _copied("preference_batch", "comparison_id", "round", "kind", "purpose"),
    "preference_dataset": {
        **_copied("preference_labels", "label_id", "comparison_id", "round", "kind", "annotator", "ranks", "strength"),
        **_copied("preference_batch", "prompt_id", "prompt", "messages", "responses", "policy_ids"),
        **_copied("preference_batch", "token_ids", "tokenizers"),
        **_copied("prompts", "split"),
        "target": ["preference_labels.ranks"],
        "ratings": ["preference_labels.axes"],
    },
    "feedback": _copied("prompts", "split"),
    "evaluation_completions": _OF_A_PROMPT,
    "evaluation_batch": _compared("evaluation_completions"),
}
"""By table and column, as ``table.column``; a column that is not here is made by the asset, or comes from outside.

Splits follow those of prompts. Rows from elsewhere (imported judgments, gold questions) have the same columns.
"""


def column_lineage(table: str, names: LoopNames) -> dg.TableColumnLineage:
    """Of a table of the loop with these names; empty where nothing comes from another table."""
    found = {
        column: [_dep(source, names) for source in sources] for column, sources in COLUMN_SOURCES.get(table, {}).items()
    }
    return dg.TableColumnLineage(found)


def _dep(source: str, names: LoopNames) -> dg.TableColumnDep:
    table, _, column = source.partition(".")
    return dg.TableColumnDep(asset_key=dg.AssetKey(names.path(table)), column_name=column)
