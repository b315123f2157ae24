"""What judgments say is kept on the way to the tables."""

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from people import pseudonym

from rlhf_dagster.data import judgments as module
from rlhf_dagster.data.imported import imported
from rlhf_dagster.data.judged import spool
from rlhf_dagster.data.judgments import Added, add_judgments
from rlhf_dagster.data.line_records import JudgmentLine
from rlhf_dagster.data.parts import table as parts
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.writer import LedgerWriter
from rlhf_dagster.labeling.parse import labels_table, usable_labels
from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.records.machines import source_name
from rlhf_dagster.records.round_keys import IMPORT_ROUND, IMPORTED_POLICY
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, IMPORTED_PROMPTS
from rlhf_dagster.storage.local import LocalStore

ADA = pseudonym("Ada")


def line(name: str = "c1", annotator: str = "Ada", ranks=(1, 2), responses=("left", "right"), **more) -> JudgmentLine:
    kind = more.pop("kind", "pair" if len(responses) == 2 else "ranking")
    return JudgmentLine(name, "Which?", responses, annotator, ranks, kind, **more)


def at(hour: int) -> datetime:
    return datetime(2020, 1, 1, hour, tzinfo=UTC)


class Loop:
    def __init__(self, root: Path) -> None:
        self.files, self.store = LocalStore(root), EmbeddedLabelStore(root / "labels.sqlite")

    def add(self, *lines: JudgmentLine) -> Added:
        return add_judgments(enumerate(lines, start=1), self.files, self.store, "some.jsonl")

    def comparisons(self) -> pd.DataFrame:
        return self.store.comparisons(IMPORT_ROUND, "train")

    def labels(self) -> pd.DataFrame:
        rows, quarantine = labels_table(self.store.read(IMPORT_ROUND, "train")[0], self.comparisons())
        assert quarantine.empty
        return rows.sort_values("position", ignore_index=True)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def ranks_by_text(loop: Loop) -> list[dict[str, int]]:
    """The ranks of each label by the texts of the responses, in the order in which the labels came."""
    responses = loop.comparisons().set_index("comparison_id")["responses"]
    rows = loop.labels()
    return [
        dict(zip(responses[name], ranks, strict=True))
        for name, ranks in zip(rows["comparison_id"], rows["ranks"], strict=True)
        if ranks is not None
    ]


def test_policies_are_kept(loop) -> None:
    loop.add(line(policies=("a", "")), line(annotator="Bob", responses=("right", "left"), policies=("", "a")))
    (row,) = loop.comparisons().to_dict("records")
    assert dict(zip(row["responses"], row["policy_ids"], strict=True)) == {"left": "a", "right": IMPORTED_POLICY}
    completions = imported(loop.files, "completions", COMPLETIONS).to_pandas()
    assert set(completions["policy_id"]) == {"a", IMPORTED_POLICY}
    assert sorted(completions["completion_id"]) == sorted(row["completion_ids"])


def test_the_order_shown_to_each_annotator_is_kept(loop) -> None:
    turned = ("right", "left")
    loop.add(line(), line(annotator="Bob", responses=turned), line(annotator="Cy", responses=turned, order_known=False))
    labels, row = loop.labels(), loop.comparisons().iloc[0]
    shown = [
        None if order is None else [row["responses"][index] for index in order] for order in labels["display_order"]
    ]
    assert shown == [None, ["right", "left"], []]
    assert [row["responses"][index] for index in row["display_order"]] == ["left", "right"]
    assert labels["chosen_position"].fillna(-1).tolist() == [0, 0, -1]
    assert ranks_by_text(loop) == [{"left": 1, "right": 2}, {"left": 2, "right": 1}, {"left": 2, "right": 1}]


def test_a_ranking_is_one_label_and_a_tie_is_no_undecided_one(loop) -> None:
    five = ("e", "d", "c", "b", "a")
    loop.add(line(ranks=(3, 1, 2, 2, 4), responses=five), line("c2", ranks=(1, 1)), line("c3", ranks=None))
    labels = loop.labels()
    assert ranks_by_text(loop)[0] == {"e": 3, "d": 1, "c": 2, "b": 2, "a": 4}
    assert [None if ranks is None else list(ranks) for ranks in labels["ranks"]][1:] == [[1, 1], None]
    assert len(usable_labels(labels)) == 2


def test_ratings_strength_flags_reason_seconds_and_metadata_are_kept(loop) -> None:
    ratings = {"helpful": (7, 1), "overall": (5, 3)}
    more = {"strength": 0.25, "flags": ("unsafe",), "reason": "why", "seconds": 12.0, "metadata": {"batch": 3}}
    loop.add(line(kind="rating", responses=("right", "left"), ratings=ratings, **more))
    (label,), (row,) = loop.labels().to_dict("records"), loop.comparisons().to_dict("records")
    by_text = {
        axis: dict(zip(row["responses"], given, strict=True)) for axis, given in json.loads(label["axes"]).items()
    }
    assert by_text == {"helpful": {"right": 7, "left": 1}, "overall": {"right": 5, "left": 3}}
    assert (label["strength"], list(label["flags"]), label["reason"]) == (0.25, ["unsafe"], "why")
    assert (label["seconds"], json.loads(label["metadata"])) == (12.0, {"batch": 3})


def test_equal_and_empty_responses_are_data(loop) -> None:
    added = loop.add(
        line("same", responses=("x", "x"), policies=("a", "b")),
        line("same", "Bob", responses=("x", "x"), policies=("b", "a")),
        line("empty", responses=("", "x")),
    )
    assert (added.new, added.refused) == (3, [])
    first, second, third = loop.labels().to_dict("records")
    policies = loop.comparisons().set_index("comparison_id")["policy_ids"]
    chosen = [policies[label["comparison_id"]][list(label["ranks"]).index(1)] for label in (first, second)]
    assert chosen == ["a", "b"]
    assert ranks_by_text(loop)[2] == {"": 1, "x": 2}
    assert third["annotator"] == ADA


def test_a_file_without_names_has_repeats_by_one_judge(loop) -> None:
    lines = [line("", ranks=(1, 2)), line("", ranks=(1, 2)), line("", ranks=(2, 1)), line("", "Bob")]
    assert loop.add(*lines).new == 4
    assert loop.add(*lines) == Added(0, 4, [])
    rows = loop.comparisons().set_index("comparison_id")
    assert sorted(rows["role"]) == ["label", "repeat", "repeat"]
    first = rows.index[rows["role"] == "label"][0]
    assert set(rows.loc[rows["role"] == "repeat", "repeat_of"]) == {first}
    _, summary = measure_quality(loop.labels(), loop.comparisons())
    assert (summary["consistency"]["value"], summary["consistency"]["n"]) == (0.5, 2)
    assert len(imported(loop.files, "completions", COMPLETIONS)) == 2


def test_a_named_comparison_shown_in_another_order_is_a_repeat(loop) -> None:
    lines = [line(), line(responses=("right", "left"))]
    assert loop.add(*lines).new == 2
    assert loop.add(*lines) == Added(0, 2, [])
    _, summary = measure_quality(loop.labels(), loop.comparisons())
    assert (summary["consistency"]["value"], summary["consistency"]["n"]) == (0.0, 1)


def test_lines_that_do_not_say_who_judged_are_a_judgment_each(loop) -> None:
    lines = [line("", ""), line("", "", ranks=(2, 1)), line("", "")]
    assert loop.add(*lines).new == 3
    assert loop.add(*lines) == Added(0, 3, [])
    labels = usable_labels(loop.labels())
    assert (len(labels), set(labels["annotator"])) == (3, {source_name("some.jsonl")})
    assert set(loop.comparisons()["role"]) == {"label"}
    assert not loop.files.exists("imports/annotators.json")


def test_a_comparison_called_what_we_would_call_one_without_a_name_is_that_one(loop) -> None:
    called = line(f"{line('', '').name} 2", "")
    assert loop.add(line("", ""), line("", ""), called) == Added(2, 1, [])
    assert len(loop.comparisons()) == 2


def test_a_judgment_submitted_later_is_a_correction(loop) -> None:
    lines = [line(submitted_at=at(1)), line(ranks=(2, 1), submitted_at=at(2))]
    assert loop.add(*lines) == Added(2, 0, [])
    assert loop.add(*lines) == Added(0, 2, [])
    assert loop.add(line(submitted_at=at(3))) == Added(1, 0, [])
    labels = loop.labels()
    assert (labels["version"].tolist(), labels["latest"].tolist()) == ([1, 2, 3], [False, False, True])
    assert labels["updated_at"].tolist() == [pd.Timestamp(at(hour)) for hour in (1, 2, 3)]
    assert ranks_by_text(loop)[2] == {"left": 1, "right": 2}


def test_an_earlier_judgment_does_not_take_the_place_of_a_later_one(loop) -> None:
    added = loop.add(line(submitted_at=at(2)), line(ranks=(2, 1), submitted_at=at(1)))
    assert (added.new, [number for number, _ in added.refused]) == (1, [2])


def test_a_refused_line_is_refused_again(loop) -> None:
    lines = [line(), line(ranks=(2, 1))]
    assert loop.add(*lines).refused == loop.add(*lines).refused != []
    assert len(loop.labels()) == 1


def test_a_judgment_can_be_withdrawn(loop) -> None:
    loop.add(line(), line("c2"))
    taken_back = line(ranks=None, withdrawn=True)
    assert [loop.add(taken_back).new, loop.add(taken_back).there] == [1, 1]
    assert loop.labels()["status"].tolist() == ["submitted", "submitted", "deleted"]
    assert len(usable_labels(loop.labels())) == 1
    assert loop.add(line()).there == 1  # the file that it came with, imported once more
    added = loop.add(line("c3", withdrawn=True))
    assert (added.new, added.refused) == (0, [(1, "a judgment that is not there cannot be withdrawn")])


def test_a_later_file_is_checked_against_earlier_imports(loop) -> None:
    loop.add(line())
    added = loop.add(line("c2"), line("c1", "Bob", responses=("left", "other")), line("c1", "Cy"))
    assert added.new == 2
    assert added.refused == [(2, "comparison c1 has another prompt or other responses than in an earlier import")]


def test_an_undecided_line_does_not_show_the_kind(loop) -> None:
    three = ("x", "y", "z")
    undecided = line(ranks=None, responses=three, kind="best_of_k")
    assert loop.add(undecided, line(annotator="Bob", ranks=(1, 2, 3), responses=three)).new == 2
    assert loop.add(line(annotator="Cy", ranks=None, responses=three, kind="best_of_k")).new == 1
    assert loop.comparisons()["kind"].tolist() == ["ranking"]
    added = loop.add(line(annotator="Di", ranks=(1, 2, 2), responses=three, kind="best_of_k"))
    assert [number for number, _ in added.refused] == [1]


@pytest.mark.parametrize(("size", "letters"), [(1, 1000), (2, 1000), (3, 1000), (1000, 20)])
def test_the_tables_do_not_depend_on_the_size_of_batches(loop, tmp_path, monkeypatch, size: int, letters: int) -> None:
    lines = [
        line(f"c{number % 5}", name, (1, 2) if number % 2 else (2, 1))
        for number in range(15)
        for name in (["machine:gpt"] if number < 5 else ["Ada", "Bob"])[: 1 + number // 10]
    ]
    lines += [line("c1", "Ada", responses=("left", "other")), *(line("", "Ada") for _ in range(3))]
    expected = loop.add(*lines)
    monkeypatch.setattr(module, "_BATCH", size)
    monkeypatch.setattr(spool, "_LETTERS", letters)
    other = Loop(tmp_path / "other")
    assert other.add(*lines) == expected
    columns = ["comparison_id", "labels_wanted", "display_order", "role"]
    pd.testing.assert_frame_equal(
        *(one.comparisons()[columns].sort_values("comparison_id", ignore_index=True) for one in (loop, other))
    )
    assert set(other.labels()["label_id"]) == set(loop.labels()["label_id"])
    table = imported(other.files, "comparisons", COMPARISONS).to_pandas()
    pd.testing.assert_frame_equal(table, other.comparisons())


class Dying:
    """Raises KeyboardInterrupt in place of the ``n``-th thing that an import writes, from 0."""

    def __init__(self, n: int) -> None:
        self.left, self.died = n, False

    def instead_of(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **more: Any) -> Any:
            if self.left == 0:
                self.died = True
                raise KeyboardInterrupt
            self.left -= 1
            return write(*arguments, **more)

        return run


def held(loop: Loop) -> list[Any]:
    schemas = {"prompts": IMPORTED_PROMPTS, "completions": COMPLETIONS, "comparisons": COMPARISONS}
    tables = [imported(loop.files, name, schema) for name, schema in schemas.items()]
    annotations, _ = loop.store.read(IMPORT_ROUND, "train")
    return [*tables, [(one.annotation_id, one.version, one.position, one.result) for one in annotations]]


def test_an_import_that_dies_at_any_write_can_be_repeated(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    monkeypatch.setattr(parts, "PART_ROWS", 3)
    lines = [line(f"c{number}", "Ada", responses=(f"{number}", "x")) for number in range(5)] + [line("", "Bob")] * 2
    whole = Loop(tmp_path / "whole")
    whole.add(*lines)
    for n in range(100):
        loop, dying = Loop(tmp_path / str(n)), Dying(n)
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            for owner, name in ((LocalStore, "create"), (LocalStore, "replace"), (LedgerWriter, "finish")):
                patched.setattr(owner, name, dying.instead_of(getattr(owner, name)))
            loop.add(*lines)
        loop.add(*lines)
        assert held(loop) == held(whole)
        if not dying.died:
            break
    assert n > 12


def test_people_who_judge_what_a_machine_judged_before_count_alone(loop) -> None:
    loop.add(line("c1", "machine:m"), line("c2", "machine:m"))
    loop.add(line("c1", "Ada"))
    counts = loop.store.count(IMPORT_ROUND, "train")
    assert (counts.labels, counts.machine, counts.complete) == (2, 2, 2)


def test_nothing_is_written_where_the_last_line_raises(loop, monkeypatch) -> None:
    def lines() -> Iterator[tuple[int, JudgmentLine]]:
        yield from enumerate([line(f"c{number}") for number in range(5)], 1)
        raise UserError("more than half")

    monkeypatch.setattr(module, "_BATCH", 2)
    with pytest.raises(UserError, match="more than half"):
        add_judgments(lines(), loop.files, loop.store, "f")
    assert loop.files.list("imports") == []
    assert loop.comparisons().empty
