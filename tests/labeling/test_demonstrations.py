import pandas as pd
import pytest

from rlhf_dagster.labeling.demonstrations import (
    DEMONSTRATION_ROUND,
    PURPOSE,
    demonstration_comparisons,
    demonstration_rows,
)
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.records.ids import demonstration_id, prompt_id
from rlhf_dagster.records.schemas import IMPORTED_DEMONSTRATIONS, PROMPTS, table


@pytest.fixture
def prompts() -> pd.DataFrame:
    rows = [
        {"prompt_id": prompt_id(text), "text": text, "source": "s", "user": "", "split": split}
        for split in ("train", "validation", "test")
        for text in (f"{split} {n}" for n in range(20))
    ]
    return table(rows, PROMPTS).to_pandas()


def test_train_prompts_without_a_demonstration_are_asked_once_each(prompts: pd.DataFrame) -> None:
    demonstrated = set(prompts["prompt_id"][:5])
    asked = demonstration_comparisons(prompts, 100, seed=0, demonstrated=demonstrated)
    assert set(asked["prompt"]) == {f"train {n}" for n in range(5, 20)}
    assert asked["comparison_id"].is_unique
    assert set(asked["kind"]) == {"demonstration"}


def test_the_draw_depends_on_the_seed_and_grows_with_n(prompts: pd.DataFrame) -> None:
    few, more, other = (demonstration_comparisons(prompts, n, seed) for n, seed in ((5, 0), (8, 0), (5, 1)))
    pd.testing.assert_frame_equal(few, more.head(5))
    assert list(few["prompt"]) != list(other["prompt"])


def test_what_was_written_becomes_demonstrations(prompts: pd.DataFrame, store) -> None:
    store.send(demonstration_comparisons(prompts, 4, seed=0))
    batch = store.comparisons(DEMONSTRATION_ROUND, PURPOSE)
    first, second, third, fourth = batch["comparison_id"]
    store.submit(first, "ann", {"text": "draft"})
    store.submit(first, "ann", {"text": "final", "reason": "no comment"})
    store.submit(second, "ann", {"text": "taken back"})
    store.delete(second, "ann")
    store.skip(third, "bob")
    store.submit(fourth, "ann", {"text": "the same"})
    store.submit(fourth, "bob", {"text": "the same"})
    rows = demonstration_rows(labels_table(store.read(DEMONSTRATION_ROUND, PURPOSE)[0], batch)[0], batch, source="us")
    assert list(rows.columns) == IMPORTED_DEMONSTRATIONS.names
    assert sorted(rows["response"]) == ["final", "the same"]
    row = rows[rows["response"] == "final"].iloc[0]
    prompt = batch["prompt"][0]
    assert (row["prompt_id"], row["prompt"], row["user"], row["source"]) == (prompt_id(prompt), prompt, "ann", "us")
    assert row["demonstration_id"] == demonstration_id(prompt, "final")
    counts = store.count(DEMONSTRATION_ROUND, PURPOSE)
    assert (counts.usable, counts.complete, counts.skipped) == (3, 2, 1)


def test_nothing_written_is_an_empty_table(prompts: pd.DataFrame, store) -> None:
    store.send(demonstration_comparisons(prompts, 4, seed=0))
    batch = store.comparisons(DEMONSTRATION_ROUND, PURPOSE)
    labels, _ = labels_table([], batch)
    rows = demonstration_rows(labels, batch)
    assert rows.empty
    assert list(rows.columns) == IMPORTED_DEMONSTRATIONS.names
