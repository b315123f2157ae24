from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.dataset import build_preferences, snapshot_hash
from rlhf_dagster.labeling.not_trained_on import NOT_TRAINED_ON, not_trained_on_sentence
from rlhf_dagster.labeling.splits import HELD_OUT_ANNOTATORS, held_out_annotators, leading_annotators
from rlhf_dagster.records.schemas import COMPARISONS, LABELS, PREFERENCES, table

TIME = pd.Timestamp("2026-01-01", tz="UTC")


def tables(judgments: list[tuple[int, str]], round_key: str = "round-0001") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Pairs judged: (number of the comparison, annotator); ten comparisons share a prompt."""
    labels, comparisons = [], {}
    for number, name in judgments:
        identity = f"{round_key}/c{number:05}"
        comparisons[identity] = dict.fromkeys(COMPARISONS.names) | {
            "comparison_id": identity,
            "role": "label",
            "prompt_id": f"p{number // 10:04}",
            "prompt": f"prompt {number // 10}",
            "responses": [f"left {number}", f"right {number}"],
            "policy_ids": ["a", "b"],
        }
        labels.append(
            dict.fromkeys(LABELS.names)
            | {
                "label_id": f"{identity}/{name}",
                "comparison_id": identity,
                "round": round_key,
                "kind": "pair",
                "purpose": "train",
                "annotator": name,
                "latest": True,
                "status": "submitted",
                "ranks": [2, 1],
                "updated_at": TIME,
            }
        )
    return table(labels, LABELS).to_pandas(), table(list(comparisons.values()), COMPARISONS).to_pandas()


def team(n: int, people: int = 10, overlap: int = 7) -> list[tuple[int, str]]:
    """One label for each comparison, three for every seventh; people take turns."""
    return [
        (number, f"ann-{(number + extra) % people}")
        for number in range(n)
        for extra in range(3 if number % overlap == 0 else 1)
    ]


def crowd(n: int) -> list[tuple[int, str]]:
    """Five labels for each comparison by people who give five each."""
    return [(number, f"w{(number * 5 + extra) // 5 % n}-{extra}") for number in range(n) for extra in range(5)]


SETTINGS = LabelingSettings(kind="pair", held_out_annotators=0.2, validation=0.1)


def test_rows_hold_what_was_judged() -> None:
    frame, summary = build_preferences(*tables([(1, "a"), (2, "b")]), SETTINGS, seed=0)
    assert list(frame.columns) == PREFERENCES.names
    row = frame.iloc[0]
    assert list(row["responses"]) == ["left 1", "right 1"]
    assert list(row["target"]) == [0.0, 1.0]
    assert row["weight"] == 1.0
    assert list(frame["label_id"]) == sorted(frame["label_id"])
    assert summary["labels"] == 2


def test_only_usable_training_labels_count() -> None:
    labels, comparisons = tables([(number, "a") for number in range(5)])
    labels.loc[0, "latest"] = False
    labels.loc[1, "status"] = "skipped"
    labels.at[2, "ranks"] = None
    labels.loc[3, "purpose"] = "evaluation"
    frame, _ = build_preferences(labels, comparisons, SETTINGS.changed(validation=0), seed=0)
    assert [identity.rsplit("/")[1] for identity in frame["label_id"]] == ["c00004"]


@pytest.mark.parametrize("judgments", [team(1000), crowd(1000)], ids=["team", "crowd"])
def test_nothing_leaks_between_the_splits(judgments) -> None:
    labels, comparisons = tables(judgments)
    frame, summary = build_preferences(labels, comparisons, SETTINGS, seed=0)
    train, validation, held_out = (
        frame[frame["split"] == name] for name in ("train", "validation", HELD_OUT_ANNOTATORS)
    )
    assert min(len(train), len(validation), len(held_out)) > 0
    assert not set(validation["prompt_id"]) & (set(train["prompt_id"]) | set(held_out["prompt_id"]))
    assert not set(held_out["annotator"]) & set(train["annotator"])
    assert not set(held_out["comparison_id"]) & set(train["comparison_id"])
    assert set(held_out["prompt_id"]) & set(train["prompt_id"])  # only the people are new
    sizes = Counter(frame["split"]) | Counter(dropped=len(labels) - len(frame))
    assert {name: summary[name] for name in sizes} == sizes
    assert len(train) > 0.5 * len(labels)


def test_a_team_loses_little() -> None:
    _, summary = build_preferences(*tables(team(1000)), SETTINGS, seed=0)
    assert summary["annotators_held_out"] == 2
    assert summary["dropped"] < 0.1 * summary["labels"]


def test_with_few_people_or_no_share_nobody_is_held_out() -> None:
    assert held_out_annotators(["a", "b"], 0.5, seed=0) == []
    assert held_out_annotators(["a", "b", "c"], 0.0, seed=0) == []
    assert len(held_out_annotators(["a", "b", "c"], 0.01, seed=0)) == 1
    assert len(held_out_annotators([str(n) for n in range(12)], 0.2, seed=0)) == 2


def drawn_first(share: float = 0.2) -> str:
    """Who is held out of ten people."""
    return held_out_annotators(sorted(f"ann-{n}" for n in range(10)), share, seed=0)[0]


def test_a_lone_annotator_of_a_round_is_never_held_out() -> None:
    """The second round is labelled by the one person who would be."""
    lone = drawn_first()
    parts = tables(team(300)), tables([(number, lone) for number in range(40)], "round-0002")
    labels, comparisons = (pd.concat(frames, ignore_index=True) for frames in zip(*parts, strict=True))
    comparisons["responses"] = [
        [f"{text} {row['comparison_id'][:10]}" for text in row["responses"]] for row in comparisons.to_dict("records")
    ]
    frame, summary = build_preferences(labels, comparisons, SETTINGS, seed=0)
    own = frame[(frame["round"] == "round-0002") & (frame["split"] == "train")]
    assert len(own) > 30
    assert set(frame.loc[frame["split"] == HELD_OUT_ANNOTATORS, "annotator"]).isdisjoint({lone})
    assert summary["annotators_held_out"] == 1  # the other one who was drawn


def test_half_of_a_round_is_not_most_of_it() -> None:
    rows = [{"round": "round-0001", "annotator": name} for name in "aabc"]
    assert leading_annotators(rows) == set()
    assert leading_annotators([*rows, rows[0]]) == {"a"}


def test_never_are_so_many_held_out_that_nothing_is_left_to_train_on() -> None:
    options = SETTINGS.changed(held_out_annotators=0.9, validation=0)
    judgments = [(number, name) for number in range(30) for name in "abc"]
    frame, summary = build_preferences(*tables(judgments), options, seed=0)
    assert 0 < summary["annotators_held_out"] < 3
    assert "train" in set(frame["split"])


def test_a_later_round_leaves_the_splits_of_earlier_ones_alone() -> None:
    first, second = tables(team(500)), tables(team(500), "round-0002")
    before, _ = build_preferences(*first, SETTINGS, seed=0)
    both = [pd.concat(parts, ignore_index=True) for parts in zip(first, second, strict=True)]
    # The second round compares other responses.
    both[1]["responses"] = [
        [f"{text} {row['comparison_id'][:10]}" for text in row["responses"]] for row in both[1].to_dict("records")
    ]
    first[1]["responses"] = both[1]["responses"][: len(first[1])]
    before, _ = build_preferences(*first, SETTINGS, seed=0)
    after, _ = build_preferences(*both, SETTINGS, seed=0)
    pd.testing.assert_frame_equal(before, after[after["round"] == "round-0001"].reset_index(drop=True))


def test_the_same_texts_under_two_ids_stay_on_one_side() -> None:
    labels, comparisons = tables(crowd(300))
    again, same_comparisons = tables([(number, f"x{number % 7}") for number in range(300)], "round-0002")
    frame, _ = build_preferences(
        pd.concat([labels, again], ignore_index=True),
        pd.concat([comparisons, same_comparisons], ignore_index=True),
        SETTINGS,
        seed=0,
    )
    texts = {name: {tuple(pair) for pair in rows["responses"]} for name, rows in frame.groupby("split")}
    assert texts[HELD_OUT_ANNOTATORS]
    assert not texts[HELD_OUT_ANNOTATORS] & texts["train"]


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcdefg")), max_size=60, unique=True),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.integers(0, 3),
)
def test_every_label_is_in_one_split_or_counted_as_dropped(judgments, held_out, validation, seed) -> None:
    options = LabelingSettings(kind="pair", held_out_annotators=held_out, validation=validation)
    frame, summary = build_preferences(*tables(judgments), options, seed=seed)
    assert frame["label_id"].is_unique
    assert len(frame) + summary["dropped"] == summary["labels"] == len(judgments)
    trained = frame[frame["split"] == "train"]
    kept = frame[frame["split"] == HELD_OUT_ANNOTATORS]
    assert not set(trained["comparison_id"]) & set(kept["comparison_id"])
    assert not set(trained["annotator"]) & set(kept["annotator"])


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcdefg")), max_size=60, unique=True),
    st.floats(0, 0.9),
    st.floats(0, 0.9),
    st.sampled_from(["prompt", "comparison"]),
    st.sampled_from(["", "a", "b"]),
)
def test_every_label_is_trained_on_or_counted_with_a_reason(judgments, held_out, validation, by, unwanted) -> None:
    options = LabelingSettings(kind="pair", held_out_annotators=held_out, validation=validation, validation_by=by)
    frame, summary = build_preferences(*tables(judgments), options, seed=0, left_out=[unwanted])
    reasons = summary["not_trained_on"]
    assert summary["train"] + sum(reasons.values()) == len(judgments)
    assert reasons.keys() <= NOT_TRAINED_ON.keys()
    assert reasons.get(f"held_out_{by}", 0) == (frame["split"] == "validation").sum()
    assert all(reasons.values())


def test_the_reasons_are_those_of_the_labels() -> None:
    held = drawn_first()
    options = SETTINGS.changed(validation=0, held_out_annotators=0.1)
    judgments = [(number, f"ann-{other}") for number in range(20) for other in range(10)]
    frame, summary = build_preferences(
        *tables(judgments), options, seed=0, left_out=["ann-3" if held != "ann-3" else "ann-4"]
    )
    kept = frame.loc[frame["split"] == HELD_OUT_ANNOTATORS, "comparison_id"].nunique()
    assert kept == 2  # a tenth of twenty
    assert summary["not_trained_on"] == {
        "held_out_annotator": 20,
        "kept_comparison": kept * 9,
        "left_out_annotator": 20 - kept,
    }


@pytest.mark.parametrize("role", ["gold", "repeat", "drift"])
def test_what_measures_the_annotators_is_not_trained_on(role: str) -> None:
    labels, comparisons = tables([(1, "a"), (2, "a")])
    comparisons.loc[0, "role"] = role
    frame, _ = build_preferences(labels, comparisons, SETTINGS.changed(validation=0), seed=0)
    assert [identity.rsplit("/")[1] for identity in frame["label_id"]] == ["c00002"]


def test_both_orders_of_a_comparison_are_in_one_split() -> None:
    labels, comparisons = tables(team(500))
    again, other_order = labels.copy(), comparisons.copy()
    other_order["repeat_of"] = other_order["comparison_id"]
    for frame in (again, other_order):
        frame["comparison_id"] = "other/" + frame["comparison_id"]
    again["label_id"] = "other/" + again["label_id"]
    # Somebody else judges the second time.
    again["annotator"] = [f"ann-{(int(name[4:]) + 3) % 10}" for name in again["annotator"]]
    options = SETTINGS.changed(validation_by="comparison")
    for settings in (SETTINGS, options):
        frame, _ = build_preferences(
            pd.concat([labels, again], ignore_index=True),
            pd.concat([comparisons, other_order], ignore_index=True),
            settings,
            seed=0,
        )
        splits = frame.groupby(frame["responses"].map(tuple))["split"].agg(set)
        assert {HELD_OUT_ANNOTATORS} in splits.tolist()
        assert all(len(names) == 1 for names in splits)


def test_a_ranking_keeps_its_ranks_and_the_best_as_target() -> None:
    labels, comparisons = tables([(1, "a")])
    labels["kind"] = "ranking"
    labels.at[0, "ranks"] = [3, 1, 2, 1]
    comparisons.at[0, "responses"] = ["w", "x", "y", "z"]
    row = build_preferences(labels, comparisons, SETTINGS.changed(validation=0), seed=0)[0].iloc[0]
    assert (row["kind"], list(row["ranks"]), list(row["target"])) == ("ranking", [3, 1, 2, 1], [0, 0.5, 0, 0.5])


def test_weights_and_people_left_out_change_the_training_split_alone() -> None:
    given = tables(team(1000))
    everybody, before = build_preferences(*given, SETTINGS, seed=0)
    trained = sorted(set(everybody.loc[everybody["split"] == "train", "annotator"]))
    gone, light, weightless = trained[:3]
    weights = {light: 0.25, weightless: 0.0}
    frame, after = build_preferences(*given, SETTINGS, seed=0, weights=weights, left_out={gone, "nobody"})
    pd.testing.assert_frame_equal(
        everybody[everybody["split"] != "train"].reset_index(drop=True),
        frame[frame["split"] != "train"].reset_index(drop=True),
    )
    train = frame[frame["split"] == "train"]
    assert set(train["annotator"]) == set(trained) - {gone, weightless}
    assert set(train.loc[train["annotator"] == light, "weight"]) == {0.25}
    assert set(train.loc[train["annotator"] != light, "weight"]) == {1.0}
    dropped = everybody["annotator"].isin([gone, weightless]) & (everybody["split"] == "train")
    assert after["dropped"] == before["dropped"] + dropped.sum()
    assert (before["annotators_left_out"], after["annotators_left_out"]) == (0, 2)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        build_preferences(*tables([(1, "a")]), SETTINGS, seed=0, weights={"a": weight})


def test_snapshot_hash_is_that_of_the_content(tmp_path) -> None:
    frame, _ = build_preferences(*tables(team(60)), SETTINGS, seed=0)
    frame.to_parquet(tmp_path / "p.parquet")
    assert snapshot_hash(pd.read_parquet(tmp_path / "p.parquet")) == snapshot_hash(frame)
    assert snapshot_hash(frame.sample(frac=1, random_state=0)) == snapshot_hash(frame)
    for column, value in {"split": "train!", "weight": 0.5, "prompt": "other"}.items():
        changed = frame.copy()
        changed.loc[0, column] = value
        assert snapshot_hash(changed) != snapshot_hash(frame)


def test_strength_and_the_ratings_that_gave_the_ranks_are_kept() -> None:
    labels, comparisons = tables([(0, "ann-1"), (1, "ann-1"), (2, "ann-1")])
    labels["strength"] = [0.5, None, None]
    labels["axes"] = ["", '{"overall": [3, 5], "tone": [7, 1]}', ""]
    labels["kind"] = ["pair", "rating", "pair"]
    for axes, expected in ((["overall", "tone"], [3.0, 5.0]), (["tone"], [7.0, 1.0])):
        settings = LabelingSettings(rating_axes=axes, validation=0)
        frame, _ = build_preferences(labels, comparisons, settings, seed=0)
        assert frame["strength"].tolist()[0] == 0.5
        assert frame["strength"].isna().tolist() == [False, True, True]
        assert [None if given is None else list(given) for given in frame["ratings"]] == [None, expected, None]


def test_older_preferences_without_the_later_columns_are_still_a_table() -> None:
    frame, _ = build_preferences(*tables(team(20)), LabelingSettings(), seed=0)
    older = frame.drop(columns=["strength", "ratings"])
    assert snapshot_hash(older) == snapshot_hash(frame)
    with pytest.raises(UserError, match="target missing"):
        table(older.drop(columns="target"), PREFERENCES)


def test_the_reasons_as_a_sentence() -> None:
    assert not_trained_on_sentence(1200, {}) == "1,200 of 1,200 labels are trained on."
    said = not_trained_on_sentence(30, {"undecided": 2, "held_out_prompt": 8, "skipped": 0})
    assert said == "30 of 40 labels are trained on; not 8 on prompts held out, 2 that name no best response."


def split_by_annotator(frame: pd.DataFrame) -> dict[str, set[str]]:
    return {name: set(rows["split"]) for name, rows in frame.groupby("annotator")}


def test_machines_train_and_measure_nothing() -> None:
    people = [(number, f"person-{number % 5}") for number in range(200)]
    machine = [(number, "machine:judge") for number in range(200)]
    settings = LabelingSettings(kind="pair", validation=0.2, held_out_annotators=0.4)
    alone, _ = build_preferences(*tables(people), settings, seed=0)
    both, summary = build_preferences(*tables(people + machine), settings, seed=0)
    assert split_by_annotator(both)["machine:judge"] == {"train"}
    assert summary["annotators"] == 5
    assert summary["train_by_machines"] == (both["annotator"] == "machine:judge").sum() > 100
    # People's labels are split as without it, although the machine gave half of them.
    pd.testing.assert_frame_equal(both[both["annotator"] != "machine:judge"].reset_index(drop=True), alone)


def test_where_no_label_is_a_persons_a_machine_is_measured_on_itself() -> None:
    labels, comparisons = tables([(number, "machine:judge") for number in range(200)])
    frame, summary = build_preferences(labels, comparisons, LabelingSettings(kind="pair", validation=0.2), seed=0)
    assert split_by_annotator(frame) == {"machine:judge": {"train", "validation"}}
    assert (summary["annotators"], summary["annotators_held_out"]) == (0, 0)


def test_a_machine_without_weight_trains_nothing() -> None:
    labels, comparisons = tables([(1, "a"), (1, "machine:judge"), (2, "machine:judge")])
    weightless, summary = build_preferences(
        labels, comparisons, LabelingSettings(validation=0), seed=0, weights={"machine:judge": 0.0}
    )
    assert weightless["annotator"].tolist() == ["a"]
    assert summary["annotators_left_out"] == 0
