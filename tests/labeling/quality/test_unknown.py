"""What a file does not say is not known: no figure makes 100% of it."""

from label_simulations import comparison_of, frames, label_row

from rlhf_dagster.labeling.quality.label_quality import estimated_competence, measure_quality

PAIRS = [comparison_of(f"c{n}") for n in range(6)]
UNORDERED = {"display_order": [], "chosen_position": None}


def of_a_source(first: int = 0) -> list[dict]:
    """Two labels of each comparison by the same file, which says neither who nor in which order."""
    rows = [label_row(first + n, f"c{n}", "source:a", [1, 2] if n else [1, 1], **UNORDERED) for n in range(6)]
    return rows + [label_row(first + 10 + n, f"c{n}", "source:b", [1, 2], **UNORDERED) for n in range(6)]


def test_a_file_without_annotators_has_no_agreement_and_no_person() -> None:
    quality, summary = measure_quality(*frames(of_a_source(), PAIRS))
    assert quality.empty
    assert (summary["labels"], summary["usable"], summary["ties"], summary["annotators"]) == (12, 12, 1, 0)
    nothing = ("agreement", "agreement_with_ties", "alpha", "consistency", "first_position")
    assert [summary[name] for name in nothing] == [None] * 5
    assert (summary["overlapping"], summary["review"]) == (0, [])
    assert summary["not_known"]["agreement"] == "not known: no label says who gave it"
    assert summary["not_known"]["first_position"].endswith("no label says in which order the responses were shown")
    assert summary["not_known"]["median_seconds"] == "not known: no label says how long it took"
    assert [(one["annotator"], one["labels"], one["ties"]) for one in summary["sources"]] == [
        ("source:a", 6, 1),
        ("source:b", 6, 0),
    ]
    assert summary["sources"][0]["first_position"] is None
    assert estimated_competence(*frames(of_a_source(), PAIRS)) == {}


def test_people_beside_a_source_have_the_figures_that_they_have_alone() -> None:
    people = [label_row(100 + n, f"c{n % 6}", "xy"[n // 6], [1, 2], seconds=4.0) for n in range(12)]
    alone, beside = (measure_quality(*frames(rows, PAIRS)) for rows in (people, people + of_a_source()))
    assert alone[0].equals(beside[0])
    figures = ("agreement", "agreement_with_ties", "alpha", "consistency", "first_position", "overlapping")
    assert {name: alone[1][name] for name in figures} == {name: beside[1][name] for name in figures}
    assert alone[1]["not_known"] == {}
    assert beside[1]["not_known"]["alpha"] == "not known of 12 of 24 labels, which do not say who gave it"
    assert beside[1]["labels"] == 24


def test_a_source_whose_orders_are_known_has_its_choices_of_the_first_place() -> None:
    rows = [label_row(n, f"c{n}", "source:a", [2, 1], display_order=[1, 0], chosen_position=0) for n in range(6)]
    summary = measure_quality(*frames(rows, PAIRS))[1]
    assert summary["sources"][0]["first_position"] == summary["first_position"]
    assert (summary["first_position"]["value"], summary["first_position"]["n"]) == (1.0, 6)
    assert "first_position" not in summary["not_known"]
