"""A loop's records out: which are there, which are left out and why, and the folder that others open."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_simulations import comparison_of, label_row
from loops import write_loop

from rlhf_dagster.common.sealed import seal
from rlhf_dagster.data.export.pushing import push_folder
from rlhf_dagster.data.import_licences import KEY
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.export.exports import export_records
from rlhf_dagster.loop.export.tables import ExportKind
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import COMPARISONS, DEMONSTRATIONS, LABELS, PREFERENCES, PROMPTS, table

ROUND = "round-0001"
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Who?"},
]
LATER = datetime(2026, 1, 3, tzinfo=UTC)


def put(loop: LoopFolder, asset: str, rows: list[dict[str, Any]], schema: pa.Schema, key: str = ROUND) -> None:
    loop.store.put(loop.asset_key(asset, key), to_parquet(table(rows, schema)))


def prompts() -> list[dict[str, Any]]:
    return [
        dict.fromkeys(PROMPTS.names) | {"prompt_id": f"p{n}", "text": f"prompt {n}", "source": source, "split": "train"}
        for n, source in enumerate(["survey", "survey", "books"])
    ]


def preference(number: int, split: str, ranks: list[int], **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(PREFERENCES.names) | {"label_id": f"l{number}", "comparison_id": f"c{number}", "round": ROUND}
    row |= {
        "kind": "pair" if len(ranks) == 2 else "ranking",
        "prompt_id": f"p{number % 3}",
        "prompt": f"prompt {number}",
    }
    row |= {"responses": [f"text {n}" for n in range(len(ranks))], "policy_ids": ["a"] * len(ranks), "ranks": ranks}
    return row | {"target": [1.0] * len(ranks), "annotator": "person", "weight": 0.5, "split": split} | changes


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    found = LoopFolder.open(write_loop(tmp_path / "loop"))
    put(found, "prompts", prompts(), PROMPTS, "")
    given = [preference(0, "train", [1, 2]), preference(1, "train", [1, 1]), preference(2, "validation", [2, 1, 3])]
    put(found, "preference_dataset", given, PREFERENCES)
    reasons = {"test_prompt": 4, "held_out_prompt": 1, "undecided": 2}
    found.write_json("preference_dataset", ROUND, {"not_trained_on": reasons, "trained_on": 2})
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_preferences_as_pairs_with_what_is_left_out(loop: LoopFolder, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    exported = export_records(loop, "preferences", out, form="trl")
    rows = lines(out)
    assert (rows[0]["prompt"], rows[0]["chosen"], rows[0]["rejected"]) == ("prompt 0", "text 0", "text 1")
    assert (rows[0]["split"], rows[0]["weight"], rows[0]["source"], rows[0]["round"]) == ("train", 0.5, "survey", ROUND)
    # A ranking of three: three pairs, which share its weight.
    assert [(row["chosen"], row["rejected"]) for row in rows[1:]] == [
        ("text 0", "text 2"),
        ("text 1", "text 0"),
        ("text 1", "text 2"),
    ]
    assert [row["weight"] for row in rows[1:]] == [pytest.approx(0.5 / 3)] * 3
    assert exported.rows == {"train": 1, "validation": 3}
    assert exported.left_out == {
        "labels on prompts of the test split": 4,
        "labels that name no best response": 2,
        "a tie, which names no better response": 1,
    }
    assert exported.records == 9


def test_a_folder_has_a_file_for_each_split_a_card_and_croissant(loop: LoopFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported = export_records(loop, "preferences", out, licence="cc-by-4.0")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        "README.md",
        "croissant.json",
        "data/train.parquet",
        "data/validation.parquet",
    ]
    card = (out / "README.md").read_text(encoding="utf-8")
    for said in (
        "license: cc-by-4.0",
        "- split: validation",
        "| train | 2 |",
        "| survey | 2 | unknown |",
        "| people | 1 |",
    ):
        assert said in card
    assert exported.rows == {"train": 2, "validation": 1}
    described = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    assert [one["contentUrl"] for one in described["distribution"]] == ["data/train.parquet", "data/validation.parquet"]
    columns = pq.read_schema(out / "data" / "train.parquet").names
    assert [field["source"]["extract"]["column"] for field in described["recordSet"][0]["field"]] == columns


def card_of(loop: LoopFolder, out: Path, licence: str = "") -> str:
    export_records(loop, "preferences", out, licence=licence)
    return (out / "README.md").read_text(encoding="utf-8")


def test_the_card_has_the_licences_of_the_sources(loop: LoopFolder, tmp_path: Path) -> None:
    assert "license: unknown" in card_of(loop, tmp_path / "unknown")
    said = {"survey": "cc-by-sa-4.0", "books": "mit", "elsewhere": "gpl-3.0"}
    loop.store.put(KEY, seal({"licences": said}))
    card = card_of(loop, tmp_path / "known")
    assert "license: cc-by-sa-4.0" in card
    assert "| survey | 2 | cc-by-sa-4.0 |" in card
    assert "gpl" not in card
    with pytest.raises(UserError, match=r"--license mit: what came from survey is under cc-by-sa-4\.0, which binds"):
        card_of(loop, tmp_path / "other", "mit")
    assert not (tmp_path / "other").exists()


def test_datasets_opens_the_folder(loop: LoopFolder, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    export_records(loop, "preferences", tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 2, "validation": 1}


def test_labels_as_each_annotator_saw_them(loop: LoopFolder, tmp_path: Path) -> None:
    asked = {"round": ROUND, "prompt": "Q", "prompt_id": "p0", "responses": ["x", "y"], "policy_ids": ["p", "q"]}
    put(loop, "preference_batch", [comparison_of("c1", **asked), comparison_of("c2", **asked)], COMPARISONS)
    of_round = {"round": ROUND, "axes": "", "reason": "", "purpose": "train"}
    put(loop, "preference_labels", label_rows(of_round), LABELS)
    exported = export_records(loop, "labels", tmp_path / "out.jsonl")
    first, undecided, tied = lines(tmp_path / "out.jsonl")
    assert (first["responses"], first["ranks"], first["order_known"]) == (["y", "x"], [2, 1], True)
    assert (first["policies"], first["reason"], first["annotator"]) == (["q", "p"], "better", "ann")
    assert (undecided["choice"], undecided["annotator"]) == (None, "bob")
    assert (tied["ranks"], tied["responses"]) == ([1, 1], ["x", "y"])
    assert exported.left_out == {
        "an earlier version of a label": 1,
        "skipped": 1,
        "an earlier label by the same annotator of the same comparison": 1,
    }
    assert exported.records == 6


def label_rows(of_round: dict[str, Any]) -> list[dict[str, Any]]:
    """Two comparisons; one label is edited, one given twice, one undecided and one skipped."""
    unknown = of_round | {"display_order": []}
    return [
        label_row(0, "c1", "ann", [1, 2], **(of_round | {"display_order": [1, 0], "reason": "better"})),
        label_row(1, "c1", "bob", None, **of_round),
        label_row(2, "c2", "ann", [2, 1], **(unknown | {"latest": False})),
        label_row(3, "c2", "ann", [1, 2], **unknown),
        label_row(4, "c2", "ann", [1, 1], **(of_round | {"updated_at": LATER})),
        label_row(5, "c2", "cy", None, **(of_round | {"status": "skipped"})),
    ]


def test_demonstrations_of_chats_as_messages(loop: LoopFolder, tmp_path: Path) -> None:
    row = dict.fromkeys(DEMONSTRATIONS.names, "x") | {
        "prompt": "Hi",
        "messages": CHAT,
        "response": "Me.",
        "split": "train",
    }
    put(loop, "demonstrations", [row], DEMONSTRATIONS, "")
    export_records(loop, "demonstrations", tmp_path / "out.jsonl", form="messages")
    (written,) = lines(tmp_path / "out.jsonl")
    assert written["messages"] == [*CHAT, {"role": "assistant", "content": "Me."}]


def test_chats_and_texts_do_not_fit_into_one_column(loop: LoopFolder, tmp_path: Path) -> None:
    given = prompts()
    given[0]["messages"] = CHAT
    put(loop, "prompts", given, PROMPTS, "")
    with pytest.raises(UserError, match="which one column cannot hold"):
        export_records(loop, "prompts", tmp_path / "out.parquet")
    export_records(loop, "prompts", tmp_path / "out.jsonl")
    assert [row["prompt"] for row in lines(tmp_path / "out.jsonl")] == [CHAT, "prompt 1", "prompt 2"]


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("preferences", {"round_key": "round-0007"}, "only round-0001 has them"),
        ("labels", {}, "no round has them"),
        ("prompts", {"round_key": ROUND}, "those of the whole loop"),
        ("preferences", {"form": "alpaca"}, "choose one of own, pair"),
        ("preferences", {"form": "label_studio"}, "is JSON alone"),
        ("prompts", {"form": "trl"}, "prompts go out as own"),
        ("demonstrations", {}, "is not made yet"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    loop: LoopFolder, tmp_path: Path, kind: ExportKind, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        export_records(loop, kind, tmp_path / "out.parquet", **options)
    assert not (tmp_path / "out.parquet").exists()


def test_a_folder_is_pushed_to_a_folder_and_nothing_there_is_replaced(loop: LoopFolder, tmp_path: Path) -> None:
    export_records(loop, "preferences", tmp_path / "out")
    push_folder(tmp_path / "out", str(tmp_path / "hub"))
    assert (tmp_path / "hub" / "README.md").read_bytes() == (tmp_path / "out" / "README.md").read_bytes()
    with pytest.raises(UserError, match="holds something already"):
        push_folder(tmp_path / "out", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="give ORG/NAME"):
        push_folder(tmp_path / "out", "name")


def test_the_hub_that_cannot_be_reached_is_one_sentence(loop: LoopFolder, tmp_path: Path) -> None:
    export_records(loop, "preferences", tmp_path / "out")
    with pytest.raises(UserError, match="cannot be written on the Hub"):
        push_folder(tmp_path / "out", "somebody/something")
