import evalica
import numpy as np
import pandas as pd
import pytest
from label_simulations import Values, pair_values, rank_values

from rlhf_dagster.labeling.quality.alpha import krippendorff_alpha

MIXED = [1, 2, 3, 5, 8]
SHAPES = {
    "three annotators with ties": (lambda generator, n: pair_values(generator, n, [3]), "nominal", 300),
    "one to eight labels": (lambda generator, n: pair_values(generator, n, MIXED), "nominal", 200),
    "few comparisons": (lambda generator, n: pair_values(generator, n, MIXED), "nominal", 40),
    "rankings of five": (lambda generator, n: rank_values(generator, n, [1, 2, 3]), "ordinal", 150),
}


def by_evalica(values: Values, distance: str) -> float:
    slots = values.groupby("unit").cumcount()
    matrix = values.assign(slot=slots).pivot(index="slot", columns="unit", values="value")
    matrix = matrix.loc[:, matrix.notna().sum() >= 2].astype(object)
    return float(evalica.alpha(matrix.where(matrix.notna(), None), distance=distance).alpha)


@pytest.mark.parametrize("shape", SHAPES)
def test_alpha_is_that_of_another_implementation(shape: str) -> None:
    make, distance, n = SHAPES[shape]
    values = make(np.random.default_rng(3), n)
    found = krippendorff_alpha(values, distance)
    assert found["value"] == pytest.approx(by_evalica(values, distance), abs=1e-12)
    assert found["low"] < found["value"] < found["high"]


def coverage(shape: str, simulations: int) -> float:
    """The share of simulations whose interval holds the alpha of endless labels."""
    make, distance, n = SHAPES[shape]
    generator = np.random.default_rng(0)
    truth = krippendorff_alpha(make(generator, 20_000), distance)["value"]
    found = [krippendorff_alpha(make(generator, n), distance) for _ in range(simulations)]
    return sum(one["low"] <= truth <= one["high"] for one in found) / simulations


def test_the_interval_holds_the_truth() -> None:
    # Of 30, 25 or fewer would come by one chance in sixty if the coverage is 95%.
    assert coverage("one to eight labels", 30) > 25 / 30


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_holds_the_truth_in_93_of_100(shape: str) -> None:
    assert coverage(shape, 400) >= 0.93


def test_comparisons_with_many_labels_do_not_move_the_interval_away_from_alpha() -> None:
    # A few comparisons that hundreds judged and agree on, and many that two judged by chance.
    generator = np.random.default_rng(0)
    crowded = np.repeat(np.arange(5), 200)
    paired = 5 + np.repeat(np.arange(500), 2)
    agreed = np.where(generator.random(len(crowded)) < 0.9, crowded % 2, 1 - crowded % 2)
    values = np.concatenate([agreed, generator.integers(0, 2, len(paired))])
    number = np.concatenate([crowded, paired])
    found = krippendorff_alpha(pd.DataFrame({"comparison": number, "unit": number, "value": values}), "nominal")
    assert found["low"] < found["value"] < found["high"]
    # It rests on five comparisons, and says so.
    assert found["high"] - found["low"] > 0.3


def test_full_agreement_of_a_few_is_not_certain() -> None:
    number = np.repeat(np.arange(10), 2)
    frame = pd.DataFrame({"comparison": number, "unit": number, "value": number % 2})
    found = krippendorff_alpha(frame, "nominal")
    assert (found["value"], found["high"], found["n"]) == (1.0, 1.0, 10)
    assert 0.3 < found["low"] < 0.5


def test_one_comparison_says_nothing_about_others() -> None:
    frame = pd.DataFrame({"comparison": [1, 1, 1], "unit": [1, 1, 1], "value": [0, 0, 1]})
    found = krippendorff_alpha(frame, "nominal")
    assert (found["low"], found["high"]) == (None, None)


@pytest.mark.parametrize("values", [[], [(1, 0)], [(1, 0), (2, 1)], [(1, 0), (1, 0), (2, 0), (2, 0)]])
def test_nothing_judged_twice_or_nothing_that_varies_has_no_alpha(values: list[tuple[int, int]]) -> None:
    frame = pd.DataFrame(values, columns=["unit", "value"])
    assert krippendorff_alpha(frame.assign(comparison=frame["unit"]), "ordinal") is None
