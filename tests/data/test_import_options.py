"""What an import is told: forms, columns, how strict to be, and whether to import at all."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from loops import asset_path, open_runner, run_missing, write_loop
from people import pseudonym

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.config.data import DataSettings
from rlhf_dagster.data.import_file import ImportOptions, ImportReport, import_file
from rlhf_dagster.data.import_licences import imported_licences, imported_sources
from rlhf_dagster.data.imported import imported
from rlhf_dagster.data.reading.mapping import column_map
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import IMPORTED_DEMONSTRATIONS, IMPORTED_FEEDBACK, IMPORTED_PROMPTS
from rlhf_dagster.storage.local import LocalStore

OWN = {"comparison": "c1", "prompt": "Which?", "responses": ["left", "right"], "annotator": "Ada", "choice": 0}
SCHEMAS = {"prompts": IMPORTED_PROMPTS, "demonstrations": IMPORTED_DEMONSTRATIONS, "feedback": IMPORTED_FEEDBACK}
PREFERENCE = {"prompt": "Which?", "chosen": "right", "rejected": "left"}


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedLabelStore:
    return EmbeddedLabelStore(tmp_path / "labels.sqlite")


@pytest.fixture
def load(tmp_path: Path, store: EmbeddedLabelStore):
    """``load(kind, rows, **options)`` imports the rows, each a dictionary or a raw line."""

    def run(kind: Any, rows: list[Any], **options: Any) -> ImportReport:
        file = tmp_path / "rows.jsonl"
        file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return import_file(kind, file, LocalStore(tmp_path), store, ImportOptions(**options))

    return run


def labels(store: EmbeddedLabelStore) -> pd.DataFrame:
    comparisons = store.comparisons(IMPORT_ROUND, "train")
    rows, quarantine = labels_table(store.read(IMPORT_ROUND, "train")[0], comparisons)
    assert quarantine.empty
    return rows.merge(comparisons[["comparison_id", "responses"]], on="comparison_id")


def table(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    found = imported(LocalStore(tmp_path), name, SCHEMAS[name])
    assert found is not None
    return found.to_pylist()


def test_another_form_is_recognised_and_says_the_same(load, store) -> None:
    report = load("judgments", [PREFERENCE, PREFERENCE | {"prompt": "What?"}])
    assert (report.form, report.read, report.added, report.refusals) == ("preference", 2, 2, 0)
    best = {
        text
        for row in labels(store).to_dict("records")
        for text, rank in zip(row["responses"], row["ranks"], strict=True)
        if rank == 1
    }
    assert best == {"right"}


def test_a_table_of_text_in_our_own_form(load, store, tmp_path) -> None:
    rows = [OWN | {"choice": 1}, OWN | {"annotator": "Bob", "choice": "tie"}, OWN | {"annotator": "Cy", "choice": None}]
    frame = pd.DataFrame(rows).assign(responses=json.dumps(OWN["responses"]))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    report = import_file("judgments", tmp_path / "rows.csv", LocalStore(tmp_path), store)
    assert (report.added, report.refused) == (3, ())
    found = labels(store).set_index("annotator")["ranks"]
    assert sorted(found[pseudonym("Ada")]) == [1, 2]
    assert list(found[pseudonym("Bob")]) == [1, 1]
    assert found[pseudonym("Cy")] is None


def test_columns_make_a_form_of_rows_that_have_none(load) -> None:
    rows = [{"title": "T", "body": "B", "left": "x", "right": "y", "verdict": "b", "id": 3}]
    with pytest.raises(UserError, match=r"its columns \(title, body, left, right, verdict, id\) are those of no form"):
        load("judgments", rows)
    columns = column_map(["prompt={title}: {body}", "response_a=left", "response_b=right", "winner=verdict"])
    assert load("judgments", rows, columns=columns).added == 1


def test_a_form_that_does_not_fit_names_the_one_that_does(load) -> None:
    report = load("judgments", [PREFERENCE], form="pair")
    assert (report.added, report.refusals) == (0, 1)
    assert report.better_command.endswith("rows.jsonl --form preference")
    with pytest.raises(UserError, match="'sonnet' is no form of judgments; choose one of label_studio"):
        load("judgments", [PREFERENCE], form="sonnet")
    with pytest.raises(UserError, match="--form is for judgments"):
        load("prompts", [{"prompt": "p"}], form="own")


def test_rows_of_another_kind_name_the_command_for_them(load) -> None:
    with pytest.raises(
        UserError, match=r"its rows are feedback, not judgments; try `rlhf import feedback .*rows.jsonl`"
    ):
        load("judgments", [{"instruction": "p", "completion": "r", "label": True}])
    with pytest.raises(UserError, match="its rows are demonstrations"):
        load("judgments", [{"instruction": "p", "output": "r"}])
    assert "rlhf import judgments" in load("demonstrations", [PREFERENCE]).better_command


def test_strict_refuses_what_the_metadata_would_keep(load) -> None:
    assert load("judgments", [OWN | {"id": 5}], strict=True).refused == (
        (1, "`id` is not a column that the form own knows"),
    )
    assert load("judgments", [OWN | {"id": 5}]).added == 1
    assert load("judgments", [PREFERENCE | {"margin": 1}], strict=True).added == 1
    assert load("prompts", [{"prompt": "p", "id": 5}], strict=True).refused == ((1, "`id` is not a key here"),)
    assert load("prompts", [{"prompt": "p", "id": 5}]).left_out == {"values of the column `id`": 1}


def test_a_dry_run_reads_everything_and_imports_nothing(load, store, tmp_path) -> None:
    report = load("judgments", [OWN, "{", OWN | {"choice": 7}, OWN, OWN], dry_run=True)
    assert (report.read, report.added, report.refusals, report.held_back) == (5, 0, 2, "a dry run")
    assert store.comparisons(IMPORT_ROUND, "train").empty
    assert not (tmp_path / "imports").exists()


def test_nothing_is_imported_if_more_than_half_is_refused_unless_asked(load, store) -> None:
    rows = [OWN, "{", OWN | {"choice": 7}]
    report = load("judgments", rows)
    assert (report.added, report.refusals, report.held_back) == (0, 2, "more than half is refused")
    assert store.comparisons(IMPORT_ROUND, "train").empty
    report = load("judgments", rows, partial=True)
    assert (report.added, report.refusals, report.held_back) == (1, 2, "")


def test_the_first_ten_refusals_are_kept_and_all_are_counted_by_reason(load) -> None:
    rows = [OWN, *[OWN | {"choice": 7 + n} for n in range(20)], *["{"] * 5]
    report = load("judgments", rows)
    assert [number for number, _ in report.refused] == list(range(2, 12))
    assert report.refusals == 25
    assert list(report.reasons.values()) == [20, 5]
    assert next(iter(report.reasons)) == "`choice` names response …, but there are only … to …"


def test_prompts_and_demonstrations_of_other_forms(load, tmp_path) -> None:
    chat = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
    rows = [
        {"instruction": "Name a", "input": "fruit.", "output": "A pear."},
        {"conversations": chat},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho."}]},
        {"question": "Who?", "answer": "I."},
    ]
    assert load("demonstrations", rows).added == 4
    found = {row["prompt"]: row["response"] for row in table(tmp_path, "demonstrations")[:2]}
    assert found == {"Name a\n\nfruit.": "A pear.", "Hi": "Hello."}
    assert load("prompts", [{"instruction": "Name a", "input": "nut."}, {"question": "Who?"}]).added == 2
    joined = load("prompts", [{"title": "T", "post": "P"}], columns={"prompt": "{title}\n{post}"})
    assert joined.added == 1
    assert [row["text"] for row in table(tmp_path, "prompts")] == ["Name a\n\nnut.", "Who?", "T\nP"]


def test_feedback_is_kept_as_it_is(load, tmp_path) -> None:
    rows = [
        {"prompt": "p", "completion": "r", "label": True},
        {"prompt": "p", "completion": "r", "label": False, "user": "Ada", "weight": 2, "source": "app"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho."}], "thumbs": "down"},
    ]
    assert load("feedback", rows).added == 3
    assert load("feedback", rows).already_there == 3
    assert pq.read_schema(tmp_path / "imports" / "feedback.parquet").equals(IMPORTED_FEEDBACK)
    first, second, third = table(tmp_path, "feedback")
    assert (first["liked"], first["weight"], first["user"], first["source"]) == (True, 1.0, "", "rows.jsonl")
    assert (second["liked"], second["weight"], second["user"], second["source"]) == (
        False,
        2.0,
        pseudonym("Ada"),
        "app",
    )
    assert (third["response"], third["liked"], third["messages"]) == ("Ho.", False, [{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"label": "purple"}, "`label` is 'purple', which is neither liked nor disliked"),
        ({}, "`label` is missing"),
        ({"label": 1, "weight": 0}, "`weight` is 0, which is not above 0"),
    ],
)
def test_what_feedback_cannot_be(load, more: dict[str, Any], reason: str) -> None:
    assert load("feedback", [{"prompt": "p", "completion": "r"} | more]).refused == ((1, reason),)


def test_tasks_without_a_judgment_are_counted(load) -> None:
    data = {"prompt": "Which?", "text1": "left", "text2": "right"}
    chosen = {"from_name": "p", "to_name": "p", "type": "pairwise", "value": {"selected": "left"}}
    judged = {"data": data, "annotations": [{"completed_by": 1, "result": [chosen]}], "predictions": [{}]}
    skipped = {"data": data, "annotations": [{"completed_by": 1, "result": [], "was_cancelled": True}]}
    report = load("judgments", [judged, skipped])
    assert (report.read, report.added) == (1, 1)
    assert report.left_out == {"predictions of tasks": 1, "skipped tasks": 1}


def test_a_data_set_comes_in_by_the_asset_of_prompts(tmp_path, monkeypatch) -> None:
    pytest.importorskip("datasets")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    settings = {"source": "imports", "test": 0.3, "judgments_dataset": {"name": "prefs", "columns": {"chosen": "won"}}}
    root = write_loop(tmp_path / "loop", data=settings, label_store={"simulated_annotators": False})
    (root / "prefs").mkdir()
    rows = [{"prompt": f"Which of {n}?", "won": "right", "rejected": "left"} for n in range(60)]
    pd.DataFrame(rows).to_parquet(root / "prefs" / "train.parquet")
    runner = open_runner(root)
    assert run_missing(runner, "prepare", until="prompts").success
    assert open_rounds(runner.instance, runner.loop) == [IMPORT_ROUND]
    assert len(runner.loop.ledger.comparisons(IMPORT_ROUND, "train")) == 60
    assert set(pd.read_parquet(asset_path(runner.loop, "prompts"))["text"]) == {row["prompt"] for row in rows}


def test_a_data_set_of_judgments_needs_the_source_imports() -> None:
    with pytest.raises(ValueError, match="it needs `source: imports`"):
        DataSettings(source="task", judgments_dataset={"name": "prefs"})


def test_a_licence_is_kept_by_the_sources_that_rows_name(load, tmp_path: Path) -> None:
    rows = [{"prompt": "one"}, {"prompt": "two", "source": "forum"}]
    load("prompts", rows, licence="cc-by-4.0")
    files = LocalStore(tmp_path)
    assert imported_licences(files) == {"rows.jsonl": "cc-by-4.0", "forum": "cc-by-4.0"}
    assert imported_sources(files) == {"rows.jsonl", "forum"}
    load("prompts", [{"prompt": "three", "source": "books"}])
    assert imported_sources(files) - imported_licences(files).keys() == {"books"}


def test_a_source_has_one_licence_and_nothing_is_imported_under_another(load, tmp_path: Path) -> None:
    load("prompts", [{"prompt": "one", "source": "forum"}], licence="cc-by-4.0")
    with pytest.raises(UserError, match=r"--license mit: what came from forum was imported under cc-by-4\.0"):
        load("prompts", [{"prompt": "two", "source": "forum"}], licence="mit")
    with pytest.raises(UserError, match="give the identifier of a licence"):
        load("prompts", [{"prompt": "two"}], licence="free for all")
    assert len(imported(LocalStore(tmp_path), "prompts", IMPORTED_PROMPTS)) == 1
    assert imported_licences(LocalStore(tmp_path)) == {"forum": "cc-by-4.0"}


def test_a_dry_run_keeps_no_licence(load, tmp_path: Path) -> None:
    load("prompts", [{"prompt": "one"}], licence="mit", dry_run=True)
    assert imported_licences(LocalStore(tmp_path)) == {}


def test_more_rows_than_one_import_may_have_are_refused_and_none_is_imported(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RLHF_LIMIT_ROWS", "3")
    file, files = tmp_path / "prompts.jsonl", LocalStore(tmp_path / "loop")
    file.write_text("".join(json.dumps({"prompt": f"Say {number}."}) + "\n" for number in range(4)))
    with pytest.raises(UserError, match=r"More than 3 rows are too many for one import; .* RLHF_LIMIT_ROWS \(now 3\)"):
        import_file("prompts", file, files)
    assert files.get("imports/prompts.parquet") is None
    monkeypatch.setenv("RLHF_LIMIT_ROWS", "4")
    assert import_file("prompts", file, files).added == 4
