"""Imported judgments: completions and comparisons of their own round, and annotations in the label store."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.data.imported import add_prompts, append_new, write_table
from rlhf_dagster.data.line_records import JudgmentLine, PromptLine
from rlhf_dagster.labeling.comparisons import comparison_row
from rlhf_dagster.labeling.forms import result_of
from rlhf_dagster.labeling.store import LabelStore, Submission
from rlhf_dagster.records.chats import messages_of, prompt_of_row
from rlhf_dagster.records.ids import completion_id, prompt_id, pseudonym
from rlhf_dagster.records.machines import is_machine
from rlhf_dagster.records.outcome import to_canonical, to_display
from rlhf_dagster.records.round_keys import IMPORT_ROUND, IMPORTED_POLICY
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, table
from rlhf_dagster.records.tables import records
from rlhf_dagster.storage.base import Store, update

_PURPOSE = "train"
NAMES = "imports/annotators.json"
_EXTRAS = ("reason", "strength", "flags")
"""Keys of a result beside its answer."""

Numbered = tuple[int, JudgmentLine]
Key = tuple[str, str]
"""Comparison id and annotator's pseudonym."""


def add_judgments(
    judgments: Iterable[Numbered], files: Store, store: LabelStore, source: str
) -> tuple[int, int, list[tuple[int, str]]]:
    """Add numbered judgments; returns how many were new, how many were there already, and those refused.

    Refused are a comparison that an earlier line gave other responses, and a second, different judgment by the same
    annotator of the same comparison. Annotations are written last, so that an import that was killed can be repeated.
    """
    consistent, refused = _consistent([(number, _by_somebody(line, source)) for number, line in judgments])
    completions, comparisons = _records(line for _, line in consistent)
    sent = {row["comparison_id"]: row for row in records(store.comparisons(IMPORT_ROUND, _PURPOSE))}
    shown = {name: sent.get(row["comparison_id"], row) for name, row in comparisons.items()}
    submissions, there, conflicts = _submissions(consistent, shown, _choices(store))

    append_new(files, "completions", completions, COMPLETIONS)
    prompts = dict.fromkeys(prompt_of_row(row) for row in comparisons.values())
    add_prompts((PromptLine(prompt, source="", user="") for prompt in prompts), files, source)
    _add_names({line.annotator for _, line in consistent}, files)
    store.send(pd.DataFrame(list(comparisons.values()), columns=COMPARISONS.names))
    store.submit_many(submissions)
    write_table(files, "comparisons", table(store.comparisons(IMPORT_ROUND, _PURPOSE), COMPARISONS))
    return len(submissions), there, refused + conflicts


def _consistent(judgments: Sequence[Numbered]) -> tuple[list[Numbered], list[tuple[int, str]]]:
    """The judgments whose comparison has the same prompt and responses as on its first line, and the others refused."""
    first: dict[str, tuple[int, Any]] = {}
    kept, refused = [], []
    for number, line in judgments:
        content = (line.prompt, sorted(line.responses))
        before, expected = first.setdefault(line.name, (number, content))
        if content == expected:
            kept.append((number, line))
        else:
            name = line.name[:80]
            refused.append((number, f"comparison {name} has another prompt or other responses than on line {before}"))
    return kept, refused


def _records(lines: Iterable[JudgmentLine]) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Rows of COMPLETIONS, and rows of COMPARISONS by their name in the file, shown in the order of the first line."""
    by_name: dict[str, list[JudgmentLine]] = {}
    for line in lines:
        by_name.setdefault(line.name, []).append(line)
    completions, comparisons = [], {}
    for name, given in by_name.items():
        members = _completions(given[0])
        row = comparison_row(members, given[0].kind, IMPORT_ROUND, _PURPOSE, seed=0)
        row["display_order"] = _order(row, given[0])
        row["labels_wanted"] = len({line.annotator for line in given if not is_machine(line.annotator)})
        completions += members
        comparisons[name] = row
    return completions, comparisons


def _submissions(
    judgments: Sequence[Numbered], shown: Mapping[str, Mapping[str, Any]], present: dict[Key, dict[str, Any]]
) -> tuple[list[Submission], int, list[tuple[int, str]]]:
    """Judgments that are new to the label store, how many it has already, and those that contradict one it has."""
    submissions: list[Submission] = []
    conflicts: list[tuple[int, str]] = []
    there = 0
    for number, line in judgments:
        row, annotator = shown[line.name], pseudonym(line.annotator)
        choice = _result(line, row)
        key = (row["comparison_id"], annotator)
        if key not in present:
            present[key] = choice
            submissions.append(Submission(*key, choice | _extras(line), line.seconds, line.submitted_at))
        elif present[key] == choice:
            there += 1
        else:
            conflicts.append((number, "the annotator has already judged this comparison, and chose otherwise"))
    return submissions, there, conflicts


def _choices(store: LabelStore) -> dict[Key, dict[str, Any]]:
    """The last answer, without its reason, that the store has of each annotator to each comparison."""
    annotations, _ = store.read(IMPORT_ROUND, _PURPOSE)
    return {
        (annotation.comparison_id, annotation.annotator): {
            key: value for key, value in annotation.result.items() if key not in _EXTRAS
        }
        for annotation in annotations
        if annotation.status == "submitted"
    }


def _result(line: JudgmentLine, row: Mapping[str, Any]) -> dict[str, Any]:
    """The choice in the label store's form: lines of one comparison may list its responses in different orders."""
    order, kind = _order(row, line), row["kind"]
    ratings = {axis: _as_shown(given, order, row) for axis, given in (line.ratings or {}).items()}
    return result_of(None if line.ranks is None else _as_shown(line.ranks, order, row), kind, ratings)


def _as_shown(values: Sequence[int], order: Sequence[int], row: Mapping[str, Any]) -> list[int]:
    return to_display(to_canonical(values, order), row["display_order"])


def _extras(line: JudgmentLine) -> dict[str, Any]:
    """What goes with the answer."""
    given = {"reason": line.reason, "strength": line.strength, "flags": list(line.flags)}
    return {key: value for key, value in given.items() if value not in ("", None, [])}


def _order(row: Mapping[str, Any], line: JudgmentLine) -> list[int]:
    """The display order in which ``line`` lists the responses of its comparison; equal ones come as they stand."""
    places: dict[str, list[int]] = {}
    for index, text in enumerate(row["responses"]):
        places.setdefault(text, []).append(index)
    return [places[text].pop(0) for text in line.responses]


def _by_somebody(line: JudgmentLine, source: str) -> JudgmentLine:
    """``line`` by a source of the file's name where it names no annotator."""
    return line if line.annotator else replace(line, annotator=f"source {source}")


def _add_names(names: Iterable[str], files: Store) -> None:
    """Extend the key file, the only place that holds annotators' names; nobody but its owner may read it."""
    new = {pseudonym(name): name for name in names}

    def add(data: bytes | None) -> bytes:
        return seal((unseal(data, NAMES) if data else {}) | new, sort_keys=True)

    update(files, NAMES, add, private=True)


def _completions(line: JudgmentLine) -> list[dict[str, Any]]:
    """One row for each response of the comparison.

    The comparison's name in the file is part of their identity: people may judge the same two texts under two names,
    and these are two judgments.
    """
    prompt = prompt_id(line.prompt)
    rows = []
    for index, text in enumerate(sorted(line.responses)):
        decoding = {"comparison": line.name, "text": text}
        rows.append(
            {
                "completion_id": completion_id(prompt, IMPORTED_POLICY, decoding, 0, index),
                "prompt_id": prompt,
                "prompt": str(line.prompt),
                "messages": messages_of(line.prompt),
                "policy_id": IMPORTED_POLICY,
                "index": index,
                "text": text,
                "token_ids": [],
                "log_probs": [],
                "reference_log_probs": [],
                "decoding": json.dumps({"comparison": line.name}, ensure_ascii=False),
                "seed": 0,
                "tokenizer": "",
            }
        )
    return rows
