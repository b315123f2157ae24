"""How far machines that label agree with people."""

from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import share_with_interval
from rlhf_dagster.labeling.parse import usable_labels
from rlhf_dagster.labeling.quality.checks import MEASURING_ROLES, Rows, Tally, asked_to_learn, gold_answers
from rlhf_dagster.labeling.quality.position import first_position
from rlhf_dagster.records.machines import by_machine, by_people
from rlhf_dagster.records.outcome import best


def machine_figures(labels: pd.DataFrame, comparisons: pd.DataFrame) -> list[dict[str, Any]]:
    """Figures of each machine that has labelled, by name; the tables have the columns of LABELS and COMPARISONS.

    ``agreement``: of every two labels of a comparison, one by the machine and one by a person, that name a single best
    response each, the share that name the same. ``gold``: of gold questions, those whose best response it named.
    ``first_position``: of its choices, those that fall on the response shown first, and what that would be by
    ``chance``. Each has ``value``, ``low``, ``high`` (a 95% Wilson interval) and ``n``, or is None without data.
    """
    usable = usable_labels(labels)
    machines = usable[by_machine(usable["annotator"])]
    people = _single_best(by_people(usable))
    rows = asked_to_learn(comparisons, machines)
    return [_figures(str(name), found, people, rows) for name, found in machines.groupby("annotator", sort=True)]


def _figures(name: str, given: pd.DataFrame, people: pd.DataFrame, rows: Rows) -> dict[str, Any]:
    measuring = given["comparison_id"].isin(rows.keys())
    roles = given["comparison_id"].map(lambda key: rows[key]["role"] if key in rows else "")
    judged = given[~roles.isin(MEASURING_ROLES)]
    gold, agreeing = gold_answers(given[measuring], rows)[name], _agreeing(_single_best(judged), people)
    return {
        "annotator": name,
        "labels": len(given),
        "undecided": int((given["ranks"].map(lambda ranks: len(best(ranks))) != 1).sum()),
        "agreement": share_with_interval(agreeing.so, agreeing.n),
        "gold": share_with_interval(gold.so, gold.n),
        "first_position": first_position(judged),
    }


def _single_best(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels that name a single best response, which is ``top``."""
    tops = labels["ranks"].map(best)
    return labels.assign(top=tops.map(lambda top: top[0]))[tops.map(len) == 1]


def _agreeing(machine: pd.DataFrame, people: pd.DataFrame) -> Tally:
    pairs = machine[["comparison_id", "top"]].merge(people[["comparison_id", "top"]], on="comparison_id")
    return Tally(len(pairs), int((pairs["top_x"] == pairs["top_y"]).sum()))
