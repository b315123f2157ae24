import numpy as np
import pytest
from label_tables import tables

from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.records.schemas import QUALITY


def test_figures_by_hand() -> None:
    quality, summary = measure_quality(
        *tables(
            [
                ("c1", "a", 0, 4.0),
                ("c1", "b", 0, 6.0),
                ("c1", "c", 1, 8.0),
                ("c2", "a", 1, 6.0),
                ("c2", "b", (0, 1), 6.0),
                ("c3", "a", None, 9.0),
            ]
        )
    )
    counts = {name: summary[name] for name in ("comparisons", "labels", "usable", "undecided", "annotators")}
    assert counts == {"comparisons": 3, "labels": 6, "usable": 5, "undecided": 2, "annotators": 3}
    assert summary["overlapping"] == 2
    # Of the three pairs of decided labels, all of c1, only a and b agree.
    assert (summary["agreement"]["value"], summary["agreement"]["n"]) == (pytest.approx(1 / 3), 3)
    assert (summary["first_position"]["value"], summary["first_position"]["n"]) == (0.5, 4)
    assert summary["first_position"]["chance"] == 0.5
    a = quality.set_index("annotator").loc["a"]
    assert (a["labels"], a["agreement"], a["agreement_n"], a["median_seconds"]) == (3, 0.5, 2, 6.0)
    assert a["share_undecided"] == pytest.approx(1 / 3)
    assert a["first_position_share"] == 0.5
    assert list(quality.columns) == QUALITY.names


def test_alpha_is_krippendorffs_nominal_example() -> None:
    # Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), example C: four observers, twelve units.
    observers = {
        "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    }
    judgments = [
        (f"c{unit:02}", name, value - 1, 1.0)
        for name, values in observers.items()
        for unit, value in enumerate(values)
        if value is not None
    ]
    alpha = measure_quality(*tables(judgments, k=5))[1]["alpha"]
    assert alpha["value"] == pytest.approx(0.743, abs=5e-4)
    assert alpha["n"] == 11
    assert alpha["low"] < alpha["value"] < alpha["high"]


def test_nothing_judged_twice_has_no_agreement() -> None:
    quality, summary = measure_quality(*tables([("c1", "a", 0, 1.0), ("c2", "b", 1, 1.0)]))
    assert summary["agreement"] is None
    assert summary["alpha"] is None
    assert quality["agreement"].isna().all()


def test_no_labels_at_all() -> None:
    labels, comparisons = tables([("c1", "a", 0, 1.0)])
    quality, summary = measure_quality(labels.iloc[:0], comparisons)
    assert quality.empty
    assert (summary["labels"], summary["agreement"], summary["first_position"]) == (0, None, None)


def test_those_who_stand_out_are_named_and_nobody_else() -> None:
    generator = np.random.default_rng(0)
    judgments = []
    for number in range(150):
        right = int(generator.integers(4))
        for name in ("good-1", "good-2", "good-3", "careless", "first", "hasty"):
            choice = right if generator.random() < 0.85 else int(generator.integers(4))
            choice = int(generator.integers(4)) if name == "careless" else choice
            choice = 0 if name == "first" and generator.random() < 0.4 else choice
            judgments.append((f"c{number:03}", name, choice, 1.0 if name == "hasty" else 10.0))
    quality, summary = measure_quality(*tables(judgments, k=4))
    review = dict(zip(quality["annotator"], quality["review"], strict=True))
    assert review["careless"].startswith("Agrees with others on")
    assert "Chose the first response shown in" in review["first"]
    assert review["hasty"] == "Takes 10% of the usual time."
    assert summary["review"] == ["careless", "first", "hasty"]
    assert quality["chance_first"].tolist() == [0.25] * 6


def test_answers_that_take_no_time_are_no_haste() -> None:
    quality, _ = measure_quality(*tables([(f"c{n}", "a", n % 2, 0.0) for n in range(40)]))
    (row,) = quality.to_dict("records")
    assert (row["median_seconds"], "usual time" in (row["review"] or "")) == (0.0, False)
