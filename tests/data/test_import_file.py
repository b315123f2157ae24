import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from people import pseudonym

from rlhf_dagster.common.progress import listening
from rlhf_dagster.common.sealed import unseal
from rlhf_dagster.data.import_file import ImportReport, import_file
from rlhf_dagster.data.judged.tables import JudgedTables
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.writer import LedgerWriter
from rlhf_dagster.labeling.parse import labels_table, usable_labels
from rlhf_dagster.records.ids import demonstration_id, prompt_id
from rlhf_dagster.records.round_keys import IMPORT_ROUND, IMPORTED_POLICY
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, IMPORTED_DEMONSTRATIONS, IMPORTED_PROMPTS
from rlhf_dagster.storage.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> EmbeddedLabelStore:
    return EmbeddedLabelStore(tmp_path / "labels.sqlite")


@pytest.fixture
def load(tmp_path: Path, store: EmbeddedLabelStore):
    """``load(kind, records)`` imports the records, each a dictionary or a raw line."""

    def run(kind: Any, records: list[Any]) -> ImportReport:
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        file = tmp_path / f"some-{kind}.jsonl"
        file.write_text("\n".join(lines), encoding="utf-8")
        return import_file(kind, file, LocalStore(tmp_path), store)

    return run


def judgment(
    comparison: str = "c1", annotator: str = "Ada", choice: Any = 0, responses=("left", "right"), **more
) -> dict:
    return {
        "comparison": comparison,
        "prompt": "Which?",
        "responses": list(responses),
        "annotator": annotator,
        "choice": choice,
    } | more


def labels(store: EmbeddedLabelStore) -> pd.DataFrame:
    comparisons = store.comparisons(IMPORT_ROUND, "train")
    rows, quarantine = labels_table(store.read(IMPORT_ROUND, "train")[0], comparisons)
    assert quarantine.empty
    shown = comparisons[["comparison_id", "responses", "display_order"]]
    return rows.drop(columns="display_order").merge(shown, on="comparison_id")


def test_prompts_are_kept_once_with_their_source(load, tmp_path) -> None:
    records = [{"prompt": "one", "source": "web"}, {"prompt": "two"}, "{", {"prompt": "one"}]
    report = load("prompts", records)
    assert (report.read, report.added, report.already_there) == (4, 2, 1)
    assert [number for number, _ in report.refused] == [3]
    again = load("prompts", records)
    assert (again.added, again.already_there) == (0, 3)
    table = pq.read_table(tmp_path / "imports" / "prompts.parquet")
    assert table.schema.equals(IMPORTED_PROMPTS)
    rows = {row["text"]: row for row in table.to_pylist()}
    assert rows["one"]["prompt_id"] == prompt_id("one")
    assert (rows["one"]["source"], rows["two"]["source"]) == ("web", "some-prompts.jsonl")


def imported(tmp_path: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Rows of an imported table by the text of the prompt."""
    rows = pq.read_table(tmp_path / "imports" / f"{kind}.parquet").to_pylist()
    return {row["text" if kind == "prompts" else "prompt"]: row for row in rows}


@pytest.mark.parametrize("kind", ["prompts", "demonstrations"])
def test_users_are_kept_as_pseudonyms(load, tmp_path, kind) -> None:
    answer = {"response": "answer"} if kind == "demonstrations" else {}
    load(kind, [{"prompt": "one", "user": "Grace Hopper"} | answer, {"prompt": "two"} | answer])
    rows = imported(tmp_path, kind)
    assert (rows["one"]["user"], rows["two"]["user"]) == (pseudonym("Grace Hopper"), "")
    assert not any(b"Hopper" in file.read_bytes() for file in (tmp_path / "imports").iterdir())


def test_the_table_of_demonstrations(load, tmp_path) -> None:
    assert load("demonstrations", [{"prompt": "one", "response": "answer"}]).added == 1
    table = pq.read_table(tmp_path / "imports" / "demonstrations.parquet")
    assert table.schema.equals(IMPORTED_DEMONSTRATIONS)
    assert table["demonstration_id"].to_pylist() == [demonstration_id("one", "answer")]


def test_a_prompt_gains_the_user_that_judgments_did_not_name(load, tmp_path) -> None:
    load("judgments", [judgment()])
    assert imported(tmp_path, "prompts")["Which?"]["user"] == ""
    report = load("prompts", [{"prompt": "Which?", "user": "Grace", "source": "web"}, {"prompt": "new"}])
    assert (report.added, report.already_there) == (1, 1)
    rows = imported(tmp_path, "prompts")
    assert (rows["Which?"]["user"], rows["Which?"]["source"]) == (pseudonym("Grace"), "web")
    assert len(rows) == pq.read_metadata(tmp_path / "imports" / "prompts.parquet").num_rows == 2


def test_a_row_keeps_the_first_user_it_is_given(load, tmp_path) -> None:
    lines = [{"prompt": "p", "response": "r"} | user for user in ({}, {"user": "a"}, {"user": "b"}, {})]
    assert load("demonstrations", lines).added == 1
    assert imported(tmp_path, "demonstrations")["p"]["user"] == pseudonym("a")
    assert load("demonstrations", lines[2:]).added == 0
    assert imported(tmp_path, "demonstrations")["p"]["user"] == pseudonym("a")


def test_judgments_become_labels_that_say_the_same(load, store, tmp_path) -> None:
    times = {"started_at": "2016-01-31T16:00:00Z", "submitted_at": "2016-01-31T16:00:30Z"}
    three = ("x", "y", "z")
    report = load(
        "judgments",
        [
            judgment("c1", "Ada", 0, reason="clearer", **times),
            judgment("c1", "Bob", 0, responses=("right", "left")),  # the other way round
            judgment("c1", "Cy", "tie"),
            judgment("c1", "Di", None),
            judgment("c2", "Ada", 2, responses=three),
            judgment("c2", "Bob", "tie", responses=three),
        ],
    )
    assert report == ImportReport(read=6, added=6, already_there=0, refused=())
    frame = labels(store)
    best = {
        (row["annotator"], len(row["responses"])): None
        if row["ranks"] is None
        else {text for text, rank in zip(row["responses"], row["ranks"], strict=True) if rank == 1}
        for row in frame.to_dict("records")
    }
    ada, bob, cy, di = (pseudonym(name) for name in ("Ada", "Bob", "Cy", "Di"))
    assert best == {
        (ada, 2): {"left"},
        (bob, 2): {"right"},
        (cy, 2): {"left", "right"},
        (di, 2): None,
        (ada, 3): {"z"},
        (bob, 3): set(three),
    }
    row = frame[(frame["annotator"] == ada) & (frame["kind"] == "pair")].iloc[0]
    assert (row["seconds"], row["reason"], row["chosen_position"]) == (30.0, "clearer", 0)
    assert row["created_at"] == pd.Timestamp("2016-01-31T16:00:30Z")
    assert len(usable_labels(frame)) == 5
    counts = store.count(IMPORT_ROUND, "train")
    assert (counts.comparisons, counts.complete, counts.labels) == (2, 2, 6)


def test_what_was_shown_where_survives_the_canonical_order(load, store) -> None:
    names = [f"c{number}" for number in range(12)]
    load("judgments", [judgment(name, choice=2, responses=("x", "y", "z")) for name in names])
    frame = labels(store)
    assert {tuple(row["responses"][i] for i in row["display_order"]) for row in frame.to_dict("records")} == {
        ("x", "y", "z")
    }
    assert len({tuple(order) for order in frame["display_order"]}) > 1
    assert list(frame["chosen_position"]) == [2] * 12
    assert all(row["responses"][list(row["ranks"]).index(1)] == "z" for row in frame.to_dict("records"))


def test_the_tables_of_judgments(load, store, tmp_path) -> None:
    load("judgments", [judgment("c1"), judgment("c2", responses=("left", "other"))])
    folder = tmp_path / "imports"
    completions, comparisons = (pq.read_table(folder / f"{name}.parquet") for name in ("completions", "comparisons"))
    assert completions.schema.equals(COMPLETIONS)
    assert comparisons.schema.equals(COMPARISONS)
    pd.testing.assert_frame_equal(comparisons.to_pandas(), store.comparisons(IMPORT_ROUND, "train"))
    assert set(completions["policy_id"].to_pylist()) == {IMPORTED_POLICY}
    used = [identity for ids in comparisons["completion_ids"].to_pylist() for identity in ids]
    assert sorted(used) == sorted(completions["completion_id"].to_pylist())
    assert set(comparisons["round"].to_pylist()) == {IMPORT_ROUND}
    assert pd.read_parquet(folder / "prompts.parquet")["text"].tolist() == ["Which?"]


def test_names_are_in_the_key_file_alone(load, store, tmp_path) -> None:
    load("judgments", [judgment(annotator="Ada Lovelace")])
    load("judgments", [judgment(annotator="Bob")])
    key = tmp_path / "imports" / "annotators.json"
    assert unseal(key.read_bytes(), "key") == {pseudonym("Ada Lovelace"): "Ada Lovelace", pseudonym("Bob"): "Bob"}
    assert key.stat().st_mode & 0o777 == 0o600
    holding = [file.name for file in tmp_path.rglob("*") if file.is_file() and b"Lovelace" in file.read_bytes()]
    assert holding == ["annotators.json"]


def test_a_second_import_adds_nothing(load, store) -> None:
    records = [judgment("c1", name, choice) for name, choice in [("Ada", 0), ("Bob", "tie"), ("Cy", None)]]
    load("judgments", records)
    before = store.read(IMPORT_ROUND, "train")
    assert load("judgments", records) == ImportReport(3, added=0, already_there=3, refused=())
    assert load("judgments", [judgment("c1", "Ada", 1, responses=("right", "left"))]).already_there == 1
    assert store.read(IMPORT_ROUND, "train") == before


def test_a_later_reason_is_kept(load, store) -> None:
    load("judgments", [judgment("c1", "Ada", 0, strength=0.5)])
    again = [judgment("c1", "Ada", 0, reason="I thought again")]
    assert [load("judgments", again).added for _ in range(2)] == [1, 0]
    assert labels(store)[["latest", "reason", "strength"]].to_numpy().tolist() == [
        [False, "", 0.5],
        [True, "I thought again", 0.5],
    ]


def test_another_choice_of_the_same_person_is_refused_in_one_file_and_a_correction_in_a_later_one(load, store) -> None:
    report = load("judgments", [judgment("c1", "Ada", 0), judgment("c1", "Ada", 0), judgment("c1", "Ada", 1)])
    assert (report.added, report.already_there, [number for number, _ in report.refused]) == (1, 1, [3])
    assert "chose otherwise" in report.refused[0][1]
    later = load("judgments", [judgment("c1", "Bob", 0), judgment("c1", "Ada", "tie")])
    assert (later.added, later.refused) == (2, ())
    ada = labels(store)[lambda frame: frame["annotator"] == pseudonym("Ada")]
    assert [list(ranks) for ranks in ada["ranks"]] in ([[1, 2], [1, 1]], [[2, 1], [1, 1]])
    assert ada["latest"].tolist() == [False, True]
    assert load("judgments", [judgment("c1", "Ada", 0)]).already_there == 1


def test_a_comparison_means_the_same_responses_throughout_a_file(load, store) -> None:
    report = load("judgments", [judgment("c1"), judgment("c1", "Bob", responses=("left", "other"))])
    assert report.added == 1
    assert report.refused == ((2, "comparison c1 has another prompt or other responses than on line 1"),)


def test_the_same_texts_under_two_names_are_two_judgments(load, store) -> None:
    assert load("judgments", [judgment("c1", "Ada", 0), judgment("c2", "Ada", 1)]).added == 2


def test_refused_lines_come_in_order(load, store) -> None:
    report = load("judgments", [judgment(), judgment(choice=1), "no json", judgment("c1", "Bob", 5)])
    assert [number for number, _ in report.refused] == [2, 3, 4]
    assert report.read == report.added + report.already_there + len(report.refused)


def test_an_import_that_was_killed_can_be_repeated(load, store, monkeypatch) -> None:
    records = [judgment("c1", "Ada"), judgment("c2", "Ada")]

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LedgerWriter, "append_after", die)
        with pytest.raises(KeyboardInterrupt):
            load("judgments", records)
    assert load("judgments", records).added == 2
    assert store.count(IMPORT_ROUND, "train").complete == 2


def test_tables_catch_up_with_the_ledger_after_a_kill(load, store, monkeypatch, tmp_path) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(JudgedTables, "append", die)
        with pytest.raises(KeyboardInterrupt):
            load("judgments", [judgment("c1", "Ada"), judgment("c2", "Ada", policies=["a", "b"])])
    assert load("judgments", [judgment("c3", "Ada")]).added == 1
    comparisons = pd.read_parquet(tmp_path / "imports" / "comparisons.parquet")
    pd.testing.assert_frame_equal(comparisons, store.comparisons(IMPORT_ROUND, "train"))
    completions = pd.read_parquet(tmp_path / "imports" / "completions.parquet")
    assert sorted(completions["completion_id"]) == sorted(comparisons["completion_ids"].explode())


def test_judgments_need_a_store_and_kinds_are_known(tmp_path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text("{}")
    with pytest.raises(UserError, match="label store"):
        import_file("judgments", file, LocalStore(tmp_path))
    with pytest.raises(UserError, match="choose prompts, demonstrations, judgments, feedback or gold"):
        import_file("pictures", file, LocalStore(tmp_path))  # type: ignore[arg-type]


def test_a_damaged_table_is_one_sentence(load, tmp_path) -> None:
    (tmp_path / "imports").mkdir()
    (tmp_path / "imports" / "prompts.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="move it away"):
        load("prompts", [{"prompt": "p"}])


def test_a_machines_judgments_stay_a_machines(load, store) -> None:
    load("judgments", [judgment("c1", "machine:gpt"), judgment("c1", "Ada"), judgment("c2", "machine:gpt")])
    rows = store.comparisons(IMPORT_ROUND, "train")
    assert sorted(rows["labels_wanted"]) == [0, 1]
    assert set(labels(store)["annotator"]) == {"machine:gpt", pseudonym("Ada")}
    counts = store.count(IMPORT_ROUND, "train")
    assert (counts.labels, counts.machine, counts.complete) == (2, 2, 2)


def test_listeners_are_told_how_many_rows_are_read(load) -> None:
    told: list[tuple[str, int, int]] = []
    with listening(lambda stage, step, total, _: told.append((stage, step, total))):
        load("prompts", [{"prompt": f"prompt {number}"} for number in range(2_500)])
        load("prompts", [{"prompt": "few"}])
    assert told == [("import", 1_000, 0), ("import", 2_000, 0), ("import", 2_500, 2_500)]
