"""What goes out comes in again: every form, but for what it says it cannot hold."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from outgoing_judgments import judgments

from rlhf_dagster.data.export.judgment_forms.base import NOT_DECIDED, TIED, Facts, NotHeldError
from rlhf_dagster.data.export.judgment_forms.known import OUTGOING_FORMS
from rlhf_dagster.data.export.judgment_forms.pairs import better_and_worse
from rlhf_dagster.data.export.outgoing import OutgoingJudgment
from rlhf_dagster.data.export.row_files import rows_to
from rlhf_dagster.data.judgment_forms.own import parse_judgment
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.records.chats import Chat
from rlhf_dagster.records.tables import Row


def said_beside(judgment: OutgoingJudgment) -> Row:
    """What a loop says of a judgment, which comes in as metadata."""
    found = {"round": judgment.round, "source": judgment.source, "split": judgment.split, "weight": judgment.weight}
    return {name: value for name, value in found.items() if value not in ("", None)}


def as_json(row: Row) -> Row:
    """A row after a trip through a file of JSON lines."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "out.jsonl")
        with rows_to(path, {}) as write:
            write(row)
        return json.loads(path.read_bytes())


def expected_of_own(judgment: OutgoingJudgment) -> JudgmentLine:
    line = judgment.line
    ratings = None if line.ratings is None else dict(line.ratings)
    return replace(line, ratings=ratings, metadata={**said_beside(judgment), **line.metadata})


@hypothesis_settings(max_examples=60)
@given(judgments())
def test_our_own_form_holds_all_of_it(judgment: OutgoingJudgment) -> None:
    (row,) = OUTGOING_FORMS["own"].rows(judgment)
    assert parse_judgment(as_json(row)) == expected_of_own(judgment)


@hypothesis_settings(max_examples=10)
@given(judgments())
def test_and_so_does_a_table_of_it(judgment: OutgoingJudgment) -> None:
    chats = isinstance(judgment.line.prompt, Chat)
    facts = Facts(chats, not chats, ("helpful", "overall") if judgment.line.ratings else ())
    form = OUTGOING_FORMS["own"]
    assert form.columns is not None
    with TemporaryDirectory() as folder:
        path = Path(folder, "out.parquet")
        with rows_to(path, form.columns(facts)) as write:
            write(form.rows(judgment)[0])
        (row,) = pq.read_table(path).to_pylist()
    row["metadata"] = json.loads(row["metadata"] or "{}")
    assert parse_judgment(row) == expected_of_own(judgment)


@given(judgments())
def test_every_pair_of_a_better_and_a_worse_response_goes_out_once(judgment: OutgoingJudgment) -> None:
    line = judgment.line
    pairs = {(line.responses[better], line.responses[worse]) for better, worse in better_and_worse(line)}
    try:
        rows = OUTGOING_FORMS["trl"].rows(judgment)
    except NotHeldError as reason:
        assert str(reason) == (NOT_DECIDED if line.ranks is None else TIED)
        assert not pairs
        return
    assert {(row["chosen"], row["rejected"]) for row in rows} == pairs
    assert len({row["comparison"] for row in rows}) == len(rows)
    if judgment.weight is not None:
        assert sum(row["weight"] for row in rows) == pytest.approx(judgment.weight)


@given(judgments())
def test_what_a_form_leaves_out_it_says(judgment: OutgoingJudgment) -> None:
    for form in OUTGOING_FORMS.values():
        try:
            rows = form.rows(judgment)
        except NotHeldError as reason:
            assert str(reason)
        else:
            assert rows
            assert all(json.dumps(as_json(row)) for row in rows)
