"""Win rates, strengths and ratings of the policies that labels compare."""

import math

import numpy as np
import pandas as pd
import pytest

from rlhf_dagster.labeling.quality.policies import ELO_MEAN, preferred_policies
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.round_keys import IMPORTED_POLICY
from rlhf_dagster.records.schemas import COMPARISONS, LABELS, table


def tables(judged: list[tuple[str, str, list[str], list[int]]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """``judged``: (comparison, annotator, policies, ranks)."""
    labels = [
        dict.fromkeys(LABELS.names)
        | {"label_id": content_hash(name, who), "comparison_id": name, "annotator": who, "ranks": ranks}
        | {"latest": True, "status": "submitted", "updated_at": pd.Timestamp(0, tz="UTC")}
        for name, who, _, ranks in judged
    ]
    policies = {name: given for name, _, given, _ in judged}
    comparisons = [
        dict.fromkeys(COMPARISONS.names) | {"comparison_id": name, "role": "label", "policy_ids": given}
        for name, given in policies.items()
    ]
    return table(labels, LABELS).to_pandas(), table(comparisons, COMPARISONS).to_pandas()


def rankings(n: int, truth: dict[str, float], seed: int, k: int = 5) -> list[tuple[str, str, list[str], list[int]]]:
    """``n`` rankings of ``k`` policies' responses by one judge each, whose noise is Gumbel's."""
    drawn = np.random.default_rng(seed)
    judged = []
    for number in range(n):
        names = [str(name) for name in drawn.choice(sorted(truth), k, replace=False)]
        scores = np.array([truth[name] for name in names]) + drawn.gumbel(size=k)
        ranks = (np.argsort(np.argsort(-scores)) + 1).tolist()
        judged.append((f"c{number}", f"judge {number % 7}", names, ranks))
    return judged


def test_two_policies_by_hand() -> None:
    judged = [(f"c{number}", "Ada", ["a", "b"], [1, 2] if number < 75 else [2, 1]) for number in range(100)]
    found = preferred_policies(*tables([*judged, *((f"t{n}", "Bob", ["b", "a"], [1, 1]) for n in range(20))]))
    assert [row["policy"] for row in found["policies"]] == ["a", "b"]
    a = found["policies"][0]
    assert (a["win_rate"]["value"], a["win_rate"]["n"]) == (pytest.approx(85 / 120), 120)
    assert a["strength"]["value"] == pytest.approx(math.log(85 / 35) / 2, abs=0.01)
    assert a["elo"]["value"] == pytest.approx(ELO_MEAN + 400 * math.log10(85 / 35) / 2, abs=2)
    (duel,) = found["duels"]
    assert [duel[name] for name in ("policy", "against", "wins", "ties", "losses")] == ["a", "b", 75, 20, 25]


def test_the_order_and_the_strengths_are_the_truth_within_their_intervals() -> None:
    truth = {"a": 1.0, "b": 0.5, "c": 0.0, "d": -0.5, "e": -0.5, "f": -0.5}
    covered = []
    for seed in range(40):
        found = preferred_policies(*tables(rankings(150, truth, seed)))
        by_name = {row["policy"]: row["strength"] for row in found["policies"]}
        covered += [by_name[name]["low"] <= value <= by_name[name]["high"] for name, value in truth.items()]
        better = [(one, other) for one in truth for other in truth if truth[one] > truth[other]]
        assert all(by_name[one]["high"] > by_name[other]["low"] for one, other in better)
    assert 0.9 < np.mean(covered) < 0.99


def test_a_ranking_is_one_unit() -> None:
    truth = {"a": 1.0, "b": 0.5, "c": 0.0, "d": -0.5, "e": -1.0}
    once = rankings(100, truth, seed=1)
    twice = once + [(name, "another", policies, ranks) for name, _, policies, ranks in once]
    one, two = (preferred_policies(*tables(judged))["policies"][0] for judged in (once, twice))
    assert one["win_rate"]["n"] == one["strength"]["n"] == 100
    for figure in ("win_rate", "strength"):
        widths = [row[figure]["high"] - row[figure]["low"] for row in (one, two)]
        assert widths[1] == pytest.approx(widths[0], rel=0.02)


def test_policies_that_nothing_connects_have_win_rates_and_no_ratings() -> None:
    judged = [(f"c{n}", "Ada", ["a", "b"], [1, 2]) for n in range(5)]
    found = preferred_policies(*tables(judged + [(f"d{n}", "Ada", ["c", "d"], [2, 1]) for n in range(5)]))
    assert [row["policy"] for row in found["policies"]] == ["a", "d", "b", "c"]
    assert {row["elo"] for row in found["policies"]} == {None}
    assert found["policies"][0]["win_rate"]["value"] == 1


def test_who_wins_every_time_has_a_finite_strength() -> None:
    found = preferred_policies(*tables([(f"c{n}", "Ada", ["a", "b"], [1, 2]) for n in range(50)]))
    assert all(math.isfinite(row["elo"][end]) for row in found["policies"] for end in ("value", "low", "high"))


@pytest.mark.parametrize("policies", [[IMPORTED_POLICY] * 2, ["a", "a"], ["a", IMPORTED_POLICY]])
def test_without_two_named_policies_there_are_no_figures(policies) -> None:
    assert preferred_policies(*tables([("c", "Ada", policies, [1, 2])])) is None


def test_machines_count_only_where_nobody_else_judges() -> None:
    machine = ("c1", "machine:m", ["a", "b"], [1, 2])
    assert preferred_policies(*tables([machine]))["policies"][0]["policy"] == "a"
    assert preferred_policies(*tables([machine, ("c2", "Ada", ["a", "b"], [2, 1])]))["policies"][0]["policy"] == "b"
