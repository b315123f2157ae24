"""Gold questions, repeats, untouched rankings, drift and flags, by hand."""

from datetime import UTC, datetime

import pandas as pd
import pytest

from rlhf_dagster.labeling.quality.label_quality import measure_quality
from rlhf_dagster.records.schemas import COMPARISONS, LABELS, QUARANTINE, table

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def comparison(name: str, role: str = "label", **changes) -> dict:
    row = dict.fromkeys(COMPARISONS.names) | {"comparison_id": name, "role": role, "repeat_of": "", "kind": "pair"}
    return row | {"display_order": [0, 1], "policy_ids": ["p", "p"]} | changes


def label(number: int, name: str, annotator: str, ranks, status: str = "submitted", **changes) -> dict:
    row = dict.fromkeys(LABELS.names) | {"label_id": f"l{number:04}", "comparison_id": name, "annotator": annotator}
    row |= {"latest": True, "status": status, "ranks": ranks, "seconds": 5.0, "updated_at": TIME, "kind": "pair"}
    return row | {"flags": []} | changes


def quality(labels: list[dict], comparisons: list[dict], quarantine: list[dict] = ()):
    frames = (table(labels, LABELS), table(comparisons, COMPARISONS), table(list(quarantine), QUARANTINE))
    rows, summary = measure_quality(*(frame.to_pandas() for frame in frames))
    return rows.set_index("annotator"), summary


FIRST, SECOND, TIE = [1, 2], [2, 1], [1, 1]


def test_gold_questions_count_what_is_known_and_nothing_else() -> None:
    comparisons = [comparison(f"g{n}", "gold", gold_ranks=FIRST) for n in range(4)] + [comparison("c")]
    labels = [label(n, f"g{n}", "a", FIRST) for n in range(3)]
    labels += [label(10, "g3", "a", TIE), label(11, "g0", "b", SECOND), label(12, "c", "a", SECOND)]
    rows, summary = quality(labels, comparisons)
    # The tie names a wrong response too.
    assert (rows.loc["a", "gold_accuracy"], rows.loc["a", "gold_n"]) == (0.75, 4)
    assert (rows.loc["b", "gold_accuracy"], rows.loc["b", "gold_n"]) == (0.0, 1)
    assert (summary["gold"]["value"], summary["gold"]["n"]) == (0.6, 5)
    # Two people judged g0, and yet gold questions are no part of the agreement, nor of the side preference.
    assert summary["agreement"] is None
    assert summary["overlapping"] == 0
    assert rows.loc["a", "labels"] == 5


def test_self_consistency_needs_the_same_person_twice() -> None:
    comparisons = [comparison("c1"), comparison("c2"), comparison("r1", "repeat", repeat_of="c1")]
    comparisons.append(comparison("o2", "label", repeat_of="c2"))  # the other order of c2
    labels = [label(1, "c1", "a", FIRST), label(2, "r1", "a", FIRST), label(3, "r1", "b", SECOND)]
    labels += [label(4, "c2", "b", FIRST), label(5, "o2", "b", SECOND)]
    rows, summary = quality(labels, comparisons)
    assert (rows.loc["a", "consistency"], rows.loc["a", "consistency_n"]) == (1.0, 1)
    assert (rows.loc["b", "consistency"], rows.loc["b", "consistency_n"]) == (0.0, 1)
    assert (summary["consistency"]["value"], summary["consistency"]["n"]) == (0.5, 2)


def test_rankings_left_as_shown_and_the_person_who_leaves_them() -> None:
    comparisons = [comparison(f"c{n}", kind="ranking", display_order=[2, 0, 1]) for n in range(12)]
    as_shown, moved, tied = [2, 3, 1], [1, 2, 3], [1, 1, 2]
    labels = [label(n, f"c{n}", "lazy", as_shown, kind="ranking") for n in range(12)]
    labels += [label(20 + n, f"c{n}", "busy", moved if n else as_shown, kind="ranking") for n in range(12)]
    labels.append(label(99, "c0", "ties", tied, kind="ranking"))
    rows, summary = quality(labels, comparisons)
    assert rows.loc["lazy", "share_untouched"] == 1.0
    assert rows.loc["busy", "share_untouched"] == pytest.approx(1 / 12)
    assert pd.isna(rows.loc["ties", "share_untouched"])
    assert summary["untouched_rankings"]["n"] == 24
    assert "Left 100% of 12 rankings in the order shown." in rows.loc["lazy", "review"]
    assert "order shown" not in rows.loc["busy", "review"]
    assert summary["alpha_ordinal"]["n"] == 36  # a unit for each response


def test_drift_is_the_share_that_prefers_the_demonstration() -> None:
    comparisons = [comparison(f"d{n}", "drift", policy_ids=["demonstration", "sft"]) for n in range(4)]
    labels = [label(n, f"d{n}", "a", FIRST if n else SECOND) for n in range(4)] + [label(9, "d0", "b", TIE)]
    _, summary = quality(labels, comparisons)
    assert (summary["drift"]["value"], summary["drift"]["n"]) == (0.75, 4)


def test_flags_skips_and_the_reasons_of_the_quarantine_are_shown() -> None:
    comparisons = [comparison(f"c{n}") for n in range(4)]
    labels = [label(1, "c1", "a", FIRST, flags=["unsafe"]), label(2, "c2", "a", None, flags=["unsafe", "both_bad"])]
    labels += [label(3, "c3", "a", FIRST), label(4, "c0", "a", None, status="skipped")]
    broken = [dict.fromkeys(QUARANTINE.names, "x") | {"problem": problem} for problem in ("odd", "odd", "empty")]
    rows, summary = quality(labels, comparisons, broken)
    assert summary["flags"] == {"unsafe": 2, "both_bad": 1}
    assert (summary["skipped"], summary["quarantined"]) == (1, {"odd": 2, "empty": 1})
    assert rows.loc["a", "share_flagged"] == pytest.approx(2 / 3)
    assert rows.loc["a", "share_skipped"] == 0.25


def test_strength_makes_agreement_ordinal() -> None:
    comparisons = [comparison(f"c{n}") for n in range(3)]
    labels = []
    for n, (one, other) in enumerate(
        [((FIRST, 1.0), (FIRST, 0.5)), ((SECOND, 1.0), (SECOND, 1.0)), ((TIE, None),) * 2]
    ):
        labels += [label(2 * n, f"c{n}", "a", one[0], strength=one[1])]
        labels += [label(2 * n + 1, f"c{n}", "b", other[0], strength=other[1])]
    _, summary = quality(labels, comparisons)
    assert summary["alpha"]["value"] == 1.0
    assert 0.7 < summary["alpha_ordinal"]["value"] < 1.0


def test_somebody_wrong_on_gold_questions_is_for_review() -> None:
    comparisons = [comparison(f"g{n}", "gold", gold_ranks=FIRST) for n in range(20)]
    labels = [label(n, f"g{n}", "bad", SECOND) for n in range(20)]
    labels += [label(100 + n, f"g{n}", "good", FIRST) for n in range(20)]
    rows, summary = quality(labels, comparisons)
    assert summary["review"] == ["bad"]
    assert "Right on 0% of 20 gold questions, others on 100%." in rows.loc["bad", "review"]
