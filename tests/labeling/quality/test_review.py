"""Who is named for review: only who stands out beyond what chance, few labels and a common order explain."""

import numpy as np
from label_simulations import comparison_of, frames, label_row

from rlhf_dagster.labeling.quality.label_quality import measure_quality


def reviewed(choices: dict[str, list[int]]) -> dict[str, str]:
    """Reviews by annotator, who all judged the same pairs; 2 is a tie."""
    ranks = ([1, 2], [2, 1], [1, 1])
    given = [(number, name, chosen) for name, made in choices.items() for number, chosen in enumerate(made)]
    rows = [
        label_row(row, f"c{number}", name, ranks[chosen], seconds=5.0)
        for row, (number, name, chosen) in enumerate(given)
    ]
    quality, _ = measure_quality(*frames(rows, [comparison_of(f"c{n}") for n in range(len(given))]))
    return dict(zip(quality["annotator"], quality["review"], strict=True))


def flipped(generator: np.random.Generator, truth: np.ndarray, share: float) -> list[int]:
    return np.where(generator.random(len(truth)) < share, 1 - truth, truth).tolist()


def test_of_three_annotators_the_two_who_differ_a_little_are_not_named() -> None:
    """Two agree with the third on 89% and 91%, and with each other on less, as far as their intervals tell."""
    generator = np.random.default_rng(0)
    middle = generator.integers(0, 2, 300)
    found = reviewed(
        {"middle": middle.tolist(), "a": flipped(generator, middle, 0.11), "b": flipped(generator, middle, 0.09)}
    )
    assert found == {"middle": "", "a": "", "b": ""}


def test_somebody_who_judges_at_random_is_named() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 2, 300)
    given = {name: flipped(generator, truth, 0.1) for name in ("a", "b", "c")}
    found = reviewed(given | {"careless": generator.integers(0, 2, 300).tolist()})
    assert [name for name, review in found.items() if review] == ["careless"]


def test_where_the_better_policy_is_always_first_nobody_prefers_a_place() -> None:
    generator = np.random.default_rng(1)
    truth = (generator.random(300) > 0.7).astype(int)
    found = reviewed({name: flipped(generator, truth, 0.05) for name in ("a", "b", "c")})
    assert found == {"a": "", "b": "", "c": ""}


def test_somebody_who_prefers_the_first_place_more_than_others_is_named() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 300)
    given = {name: flipped(generator, truth, 0.05) for name in ("a", "b", "c")}
    first = np.where(generator.random(300) < 0.5, 0, truth).tolist()
    found = reviewed(given | {"first": first})
    assert "Chose the first response shown in" in found["first"]
    assert [found[name] for name in "abc"] == ["", "", ""]
