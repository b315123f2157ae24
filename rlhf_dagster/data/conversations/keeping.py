"""The prompts and the feedback of logs, as a loop keeps them, and what there is to say of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_dagster.config.data import DataSettings
from rlhf_dagster.data.conversations.logged import opening_of
from rlhf_dagster.data.conversations.taking import Taken, TakenPrompt, take
from rlhf_dagster.data.imported import add_feedback
from rlhf_dagster.data.rows import prompt_row
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.records.ids import prompt_id, split_of
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.pseudonyms import NOBODY, Pseudonyms
from rlhf_dagster.records.schemas import PROMPT_LINEAGE, table
from rlhf_dagster.storage.base import Store

LINEAGE = "assets/prompts/lineage.parquet"


@dataclass(frozen=True)
class FromLogs:
    """What the logs of `data.feedback` have brought."""

    rows: list[dict[str, Any]]
    """Of the schema PROMPTS."""
    lineage: list[dict[str, Any]]
    """Of the schema PROMPT_LINEAGE."""
    counts: dict[str, Any]
    """For people and for JSON; empty where no log is named."""


def read_logs(data: DataSettings, root: Path, store: Store) -> tuple[FromLogs, Taken]:
    """Read the logs and keep nothing of them; ``root`` is the config's folder, ``store`` knows people's pseudonyms.

    Raises UserError where a log cannot be read.
    """
    taken = take(data.feedback, root) if data.feedback.logs else Taken()
    people = people_of(store) if any(one.user for one in taken.prompts) else NOBODY
    rows = [_row(one, data, people) for one in taken.prompts]
    lineage = [_lineage(one, people) for one in taken.prompts]
    return FromLogs(rows, lineage, _counts(taken) if data.feedback.logs else {}), taken


def keep_logs(data: DataSettings, root: Path, store: Store) -> FromLogs:
    """:func:`read_logs`, with the lineage and the thumbs kept in ``store``, the thumbs beside those that are there.

    Without any lineage, now or before, nothing is written.
    """
    found, taken = read_logs(data, root, store)
    if found.lineage or store.exists(LINEAGE):
        store.put(LINEAGE, to_parquet(table(found.lineage, PROMPT_LINEAGE)))
    if not taken.thumbs:
        return found
    added, there = add_feedback(taken.thumbs, store, "")
    return FromLogs(found.rows, found.lineage, found.counts | {"thumbs_added": added, "thumbs_already_there": there})


def sentences_on_logs(counts: dict[str, Any]) -> Iterator[str]:
    """The counts of :class:`FromLogs` for people."""
    if not counts:
        return
    yield f"{counts['conversations']:,} conversations on {counts['lines']:,} lines: {counts['prompts']:,} are prompts."
    yield from (f"{n:,} are left out: {why}." for why, n in counts["left_out"].items())
    yield from (f"{n:,} lines cannot be read: {why}." for why, n in counts["refused"].items())
    yield from (f"{n:,} conversations hold {kind}." for kind, n in counts["personal_data"].items())
    if "thumbs_added" in counts:
        yield f"{counts['thumbs_added']:,} thumbs are new, {counts['thumbs_already_there']:,} were there already."
    yield from (f"{n:,} thumbs are left out: {why}." for why, n in counts["thumbs_left_out"].items())
    yield from (f"{name} is not there yet." for name in counts["missing"])


def _counts(taken: Taken) -> dict[str, Any]:
    return {
        "lines": taken.lines.read,
        "conversations": taken.conversations,
        "prompts": len(taken.prompts),
        "users": len({one.user for one in taken.prompts if one.user}),
        "left_out": dict(taken.left_out),
        "refused": dict(taken.lines.reasons),
        "first_refused": taken.refused,
        "personal_data": dict(taken.personal_data),
        "thumbs": len(taken.thumbs),
        "thumbs_left_out": dict(taken.thumbs_left_out),
        "missing": taken.missing,
    }


def _row(one: TakenPrompt, data: DataSettings, people: Pseudonyms) -> dict[str, Any]:
    """A row of PROMPTS. All that a user asks is in one split; of nobody known, all that begins with the same turn."""
    user = people.of(one.user)
    split = split_of(user or opening_of(one.prompt), data.validation, data.test)
    return prompt_row(one.prompt, one.place.log, user, split)


def _lineage(one: TakenPrompt, people: Pseudonyms) -> dict[str, Any]:
    return {
        "prompt_id": prompt_id(one.prompt),
        "log": one.place.log,
        "line": one.place.line,
        "user": people.of(one.user),
        "policy_id": one.policy_id,
        "conversation": one.response_id,
    }
