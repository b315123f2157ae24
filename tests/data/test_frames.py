"""Tables for trainings from texts and data frames."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhf_dagster.data.frames import demonstrations_table, preferences_table, pretraining_table, prompts_table
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import demonstration_id, prompt_id, pseudonym
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.records.tables import read_table, records

TEXTS = [f"text {number}" for number in range(400)]
PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}
WORDS = st.sampled_from(["a", "b", "c d", "é ", "\n x"])


def pairs(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame([PAIR | row for row in rows])


def shares(table: pd.DataFrame) -> float:
    return float((table["split"] == "validation").mean())


def test_a_pair_is_a_label_of_the_reward_model() -> None:
    (row,) = records(preferences_table(pairs({"annotator": "Ada", "strength": 0.5}), validation=0))
    assert (row["prompt"], row["prompt_id"]) == ("p", prompt_id("p"))
    assert list(row["responses"]) == ["bad", "good"]  # sorted
    assert (list(row["ranks"]), list(row["target"])) == ([2, 1], [0.0, 1.0])
    assert (row["kind"], row["round"], row["weight"], row["strength"]) == ("pair", "round-0000", 1.0, 0.5)
    assert (row["annotator"], row["split"], row["ratings"]) == (pseudonym("Ada"), "train", None)


def test_what_is_optional_may_have_gaps() -> None:
    table = preferences_table(pairs({"annotator": "Ada", "strength": 1}, {"annotator": None}, {"annotator": 7}))
    assert table["annotator"].tolist() == [pseudonym("Ada"), "", pseudonym("7")]
    assert table["strength"].isna().tolist() == [False, True, True]
    plain = preferences_table(pairs({}))
    assert (plain["annotator"].tolist(), plain["strength"].isna().tolist()) == ([""], [True])


def test_labels_of_the_same_two_responses_are_about_one_comparison() -> None:
    """One repeated, one by somebody who disagrees, and one about the same texts after another prompt."""
    turned = {"chosen": "bad", "rejected": "good"}
    table = preferences_table(pairs({}, {}, turned, {"prompt": "q"}))
    first, again, disagreeing, other = table["comparison_id"]
    assert first == again == disagreeing != other
    assert [list(ranks) for ranks in table["ranks"]] == [[2, 1], [2, 1], [1, 2], [2, 1]]
    assert table["label_id"].is_unique


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(WORDS, WORDS, WORDS), min_size=1, max_size=20), st.sampled_from([0.0, 0.3, 1.0]))
def test_any_frame_of_pairs_keeps_its_rows_and_what_was_chosen(rows, validation) -> None:
    frame = pd.DataFrame(rows, columns=["prompt", "chosen", "rejected"])
    frame = frame[frame["chosen"].str.strip() != frame["rejected"].str.strip()]
    if frame.empty:
        return
    table = preferences_table(frame, validation)
    assert table["prompt"].tolist() == frame["prompt"].tolist()
    best = [row["responses"][list(row["ranks"]).index(1)] for row in records(table)]
    assert best == frame["chosen"].tolist()
    assert (table.groupby("prompt")["split"].nunique() == 1).all()
    assert (table.groupby("comparison_id")["responses"].agg(lambda all_: len(set(map(tuple, all_)))) == 1).all()


@pytest.mark.parametrize(
    ("make", "given_rows", "schema"),
    [
        (prompts_table, TEXTS, PROMPTS),
        (pretraining_table, TEXTS, PRETRAINING_TEXT),
        (demonstrations_table, pd.DataFrame({"prompt": TEXTS, "response": "yes"}), DEMONSTRATIONS),
        (preferences_table, pd.DataFrame({"prompt": TEXTS, "chosen": "yes", "rejected": "no"}), PREFERENCES),
    ],
)
def test_a_table_is_read_by_trainings_as_it_was_made(make: Callable, given_rows, schema, tmp_path: Path) -> None:
    made = make(given_rows)
    made.to_parquet(tmp_path / "table.parquet")
    read = read_table(tmp_path / "table.parquet", schema)
    assert read.columns.tolist() == schema.names
    assert len(read) == len(TEXTS)
    assert set(read["split"]) == {"train", "validation"}
    assert read[schema.names[0]].tolist() == made[schema.names[0]].tolist()


def test_a_prompt_is_held_out_in_every_table_or_in_none() -> None:
    prompts = prompts_table(TEXTS, 0.3)
    written = demonstrations_table(pd.DataFrame({"prompt": TEXTS, "response": "yes"}), 0.3)
    preferred = preferences_table(pd.DataFrame({"prompt": TEXTS, "chosen": "yes", "rejected": "no"}), 0.3)
    assert prompts["split"].tolist() == written["split"].tolist() == preferred["split"].tolist()
    assert 0.2 < shares(prompts) < 0.4


def test_the_share_held_out_is_what_was_asked_for() -> None:
    assert 0.05 < shares(prompts_table(TEXTS)) < 0.15
    assert 0.01 < shares(pretraining_table(TEXTS)) < 0.1
    assert (shares(prompts_table(TEXTS, 0)), shares(prompts_table(TEXTS, 1))) == (0.0, 1.0)


def test_a_text_counts_once_and_keeps_its_place() -> None:
    assert prompts_table(pd.Series(["b", "a", "b"]))["text"].tolist() == ["b", "a"]
    twice = pd.DataFrame({"prompt": ["p", "p", "p"], "response": ["r", "s", "r"]})
    ids = [demonstration_id("p", "r"), demonstration_id("p", "s")]
    assert demonstrations_table(twice)["demonstration_id"].tolist() == ids


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            pairs({}).drop(columns="chosen"),
            "has no column `chosen`; known here: prompt, chosen, rejected, annotator, s",
        ),
        (pairs({"weight": 2.0}), "The column `weight` would be ignored; leave it out. Known: prompt, chosen"),
        (pd.concat([pairs({}), pairs({})[["prompt"]]], axis=1), "two columns of one name"),
        (pairs({}).iloc[:0], "There is no row to make a table of"),
        (pairs({}, {"chosen": " "}), "Row 1, counted from 0: `chosen` is empty; correct it or leave it out."),
        (pairs({}, {"rejected": None}), "Row 1, counted from 0: `rejected` is not a text"),
        (pairs({"prompt": 3}), "Row 0, counted from 0: `prompt` is not a text"),
        (pairs({"rejected": " good"}), "`chosen` and `rejected` are the same response"),
        (pairs({"strength": 1.5}), "`strength` is 1.5, which is no number from 0 to 1"),
        (pairs({"strength": "much"}), "`strength` is much, which is no number"),
        (pairs({"strength": True}), "`strength` is True, which is no number"),
    ],
)
def test_a_frame_that_cannot_be_used_is_one_sentence(frame, message) -> None:
    with pytest.raises(UserError) as caught:
        preferences_table(frame)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "There is no row"),
        (["a", ""], "Row 1, counted from 0: `text` is empty"),
        ([None], "Row 0, counted from 0: `text` is not a text"),
        (["\ud800"], "a character that Unicode does not have"),
        ("a text", "not one str"),
        (pd.DataFrame({"prompt": ["a"]}), "not one DataFrame"),
    ],
)
def test_texts_that_cannot_be_used_are_one_sentence(texts, message) -> None:
    for make in (prompts_table, pretraining_table):
        with pytest.raises(UserError) as caught:
            make(texts)
        assert message in str(caught.value)


@pytest.mark.parametrize("validation", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(validation) -> None:
    with pytest.raises(UserError, match="it is a share, from 0 to 1"):
        prompts_table(TEXTS, validation)


def test_an_annotator_s_number_is_one_name_with_and_without_gaps_in_its_column() -> None:
    whole = preferences_table(pairs({"annotator": 7}, {"annotator": 8}))
    gaps = preferences_table(pairs({"annotator": 7}, {"annotator": None}))
    assert set(whole["annotator"]) == {pseudonym("7"), pseudonym("8")}
    assert pseudonym("7") in set(gaps["annotator"])
