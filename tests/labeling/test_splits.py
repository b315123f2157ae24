"""What holding people out costs, said and bounded."""

from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.splits import Splits, split_labels


def split(rows: list[tuple[str, str]], share: float = 0.2) -> Splits:
    """The splits of labels, each of a comparison by an annotator, without a validation split."""
    labels: list[dict[str, Any]] = [{"round": "round-0001", "annotator": name} for _, name in rows]
    settings = LabelingSettings(held_out_annotators=share, validation=0)
    return split_labels(labels, [content for content, _ in rows], [False] * len(rows), set(), settings, seed=0)


def everybody_judges_all(names: str, comparisons: int = 100) -> list[tuple[str, str]]:
    return [(f"c{number:03}", name) for number in range(comparisons) for name in names]


def test_of_three_who_judge_everything_nobody_is_held_out() -> None:
    found = split(everybody_judges_all("abc"))
    assert not found.held_out
    assert not found.kept_out
    assert {place.split for place in found.places} == {"train"}
    assert found.cost == (
        "Nobody is held out: one of 3 annotators would cost 140 of 300 labels (47%), more than twice the share of "
        "`labeling.held_out_annotators` (20%)."
    )


def test_of_five_who_judge_everything_one_is_held_out_and_what_it_costs_is_said() -> None:
    found = split(everybody_judges_all("abcde"))
    assert len(found.held_out) == 1
    assert found.cost == (
        "1 of 5 annotators is held out, which costs 180 of 500 labels (36%): 100 of theirs, and 80 by others on the "
        "comparisons kept for them."
    )
    lost = sum(place.split != "train" for place in found.places)
    assert lost == 180


def test_whoever_asks_for_more_gets_it() -> None:
    assert len(split(everybody_judges_all("abc"), share=0.3).held_out) == 1
    assert split(everybody_judges_all("abc"), share=0).cost == ""


def test_a_source_is_nobody_who_could_be_held_out() -> None:
    of_source = [(f"c{number:03}", "source:file") for number in range(100)]
    alone = split(of_source)
    assert not alone.held_out
    assert alone.cost == ""
    assert {place.split for place in alone.places} == {"train"}
    beside = split(of_source + everybody_judges_all("abcdefgh"))
    assert beside.held_out
    assert "source:file" not in beside.held_out
