"""Plain rows give the same as all others: read at once or key by key, answered with what lines share or one by one."""

import json
import sqlite3
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhf_dagster.data import judgments as module
from rlhf_dagster.data.import_file import ImportOptions, import_file
from rlhf_dagster.data.judged import answers
from rlhf_dagster.data.judgment_forms.own import parse_judgment
from rlhf_dagster.data.judgment_forms.plain import PlainRows
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.storage.local import LocalStore

TEXTS = st.sampled_from(["left", "right", "x", "", " ", "\u00e4", "\x00"])
ODD = st.sampled_from([None, 1, 1.0, True, False, 0, ["left"], {"a": 1}, "\ud800", float("nan")])
MESSAGES = st.sampled_from([[{"role": "assistant", "content": "left"}], [{"role": "user", "content": "Which?"}]])
PEOPLE = st.sampled_from(["Ada", "Bob", "", None, "machine:m", "source:s"])
CHOICES = st.sampled_from([0, 1, 0, 1, "tie", None])
PLAIN = st.fixed_dictionaries(
    {"prompt": st.sampled_from(["Which?", "Which?", "Why?", "\u00e4"])}
    | {"responses": st.lists(TEXTS, min_size=2, max_size=2) | st.lists(TEXTS, min_size=2, max_size=4)}
    | {"choice": CHOICES},
    optional={"comparison": st.sampled_from(["c1", "c2", "c3", "", None]), "annotator": PEOPLE}
    | {"policies": st.none() | st.lists(st.sampled_from(["p", "q", ""]), min_size=2, max_size=2)},
)
VALUES = TEXTS | ODD | MESSAGES | st.lists(TEXTS | ODD | MESSAGES, max_size=3)
CHANGES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("prompt", "responses", "comparison", "annotator", "policies", "messages"), VALUES)
    | {"choice": VALUES | st.sampled_from([-1, 2, 1.0, True, [0], [0, 1], "0", "null", "[1]"])}
    | {"submitted_at": st.sampled_from(["2020-01-01", "2021-01-01", 3]), "reason": TEXTS}
    | {"order_known": st.booleans(), "withdrawn": st.booleans(), "ranks": st.just([1, 2]), "more": TEXTS},
)
ROWS = st.one_of(PLAIN, PLAIN, st.tuples(PLAIN, CHANGES).map(lambda both: both[0] | both[1]))


@hypothesis_settings(max_examples=400)
@given(st.lists(ROWS, min_size=1, max_size=5))
@example([{"prompt": "Which?", "responses": [], "choice": "tie"}])
def test_a_row_that_is_read_at_once_is_what_its_keys_say(rows: list[dict[str, Any]]) -> None:
    plain = PlainRows()
    for row in rows:
        judgment = plain.judgment(row)
        try:
            expected = parse_judgment(row).parts
        except BadLineError:
            expected = None
        assert judgment in (None, expected)


def test_most_rows_are_read_at_once_and_share_their_parts() -> None:
    plain = PlainRows()
    row = {"prompt": "Which?", "responses": ["left", "right"], "choice": 1, "annotator": "Ada", "policies": ["a", "b"]}
    first, second = plain.judgment(row), plain.judgment(json.loads(json.dumps(row)) | {"annotator": "Bob"})
    assert first is not None
    assert second is not None
    assert first.listing is second.listing
    assert first.decision is second.decision
    assert plain.judgment(row | {"reason": "clearer"}) is None
    for choice in (True, 1.0, "1", 2, -1, [1]):
        assert plain.judgment(row | {"choice": choice}) is None


def imported(rows: list[dict[str, Any]]) -> tuple[Any, ...]:
    """Everything that an import of some rows leaves and reports, but for when it was."""
    with TemporaryDirectory() as name:
        file, folder = Path(name, "f.jsonl"), Path(name, "loop")
        file.write_text("\n".join(map(json.dumps, rows)))
        store = EmbeddedLabelStore(folder / "labels.sqlite")
        report = import_file("judgments", file, LocalStore(folder), store, ImportOptions(form="own", partial=True))
        tables = {path.name: path.read_bytes() for path in sorted(folder.glob("imports/**/*.*"))}
        ledger = sqlite3.connect(folder / "labels.sqlite")
        comparisons = ledger.execute("SELECT * FROM comparisons ORDER BY task_id").fetchall()
        versions = ledger.execute(
            "SELECT position, annotation_id, version, comparison_id, annotator, status, result, seconds, project "
            "FROM annotations ORDER BY position"
        ).fetchall()
        ledger.close()
        return asdict(report), tables, comparisons, versions


@pytest.mark.parametrize("size", [3, 40_000])
@hypothesis_settings(max_examples=8)
@given(rows=st.lists(ROWS, min_size=1, max_size=20))
def test_the_tables_are_the_same_byte_by_byte(size: int, rows: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "_BATCH", size)
        expected = imported(rows)
        patched.setattr(PlainRows, "judgment", lambda *_: None)
        patched.setattr(answers, "_are_alone", lambda judged: [False] * len(judged.lines))
        assert imported(rows) == expected
