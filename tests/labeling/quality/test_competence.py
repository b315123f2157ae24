import random

import pytest

from rlhf_dagster.labeling.quality.competence import FLOOR, AnnotatorChoice, competences, label_weights


def simulated(skill: dict[str, float], comparisons: int, k: int, seed: int) -> list[AnnotatorChoice]:
    rng = random.Random(seed)
    choices = []
    for number in range(comparisons):
        truth = rng.randrange(k)
        for name, p in skill.items():
            wrong = [index for index in range(k) if index != truth]
            choices.append(AnnotatorChoice(f"c{number}", name, truth if rng.random() < p else rng.choice(wrong), k))
    return choices


@pytest.mark.parametrize("k", [2, 4])
def test_planted_competences_are_recovered(k) -> None:
    planted = {"ann": 0.95, "bob": 0.85, "cy": 0.7, "di": 0.6, "ed": 1 / k}
    found = competences(simulated(planted, 800, k, seed=1))
    for name, value in planted.items():
        assert found[name] == pytest.approx(value, abs=0.06), (name, found)


def test_gold_questions_tell_without_anybody_else() -> None:
    choices = [AnnotatorChoice(f"g{n}", "ann", 0, 3) for n in range(50)] + [
        AnnotatorChoice(f"g{n}", "bob", 1, 3) for n in range(50)
    ]
    found = competences(choices, {f"g{n}": 0 for n in range(50)})
    assert found["ann"] > 0.9
    assert found["bob"] < 0.1


def test_few_labels_stay_near_the_mean_and_nothing_shared_says_nothing() -> None:
    many = simulated({"ann": 0.8, "bob": 0.8, "cy": 0.8}, 200, 3, seed=2)
    found = competences(
        [*many, AnnotatorChoice("c0", "new", (many[0].best + 1) % 3, 3), AnnotatorChoice("alone", "far", 1, 3)]
    )
    assert abs(found["far"] - 0.8) < 0.07
    assert 0.5 < found["new"] < found["far"]
    assert competences([AnnotatorChoice("a", "ann", 0, 2), AnnotatorChoice("b", "bob", 1, 2)]) == {}


def test_weights_by_hand() -> None:
    weights = label_weights({"ann": 1.0, "bob": 0.5, "cy": 0.25}, k=4)
    # Above guessing by 1, 1/3 and 0, which is raised to the floor.
    mean = (1 + 1 / 3 + FLOOR) / 3
    assert weights == pytest.approx({"ann": 1 / mean, "bob": 1 / 3 / mean, "cy": FLOOR / mean})
    assert label_weights({}, 2) == {}
